"""HuggingFace's hub: released weights from its cache, or into it. The one place that knows huggingface_hub.

The cache comes first and is not checked against the network: an archive must find the weights that made it, and a
machine without a network must not wait for one. The cache lies where HF_HOME or HF_HUB_CACHE say; with
HF_HUB_OFFLINE=1 nothing is fetched. Progress is shown by huggingface_hub itself.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import RemoteEntryNotFoundError

from schemas.errors import InputError, first_line

# What the released repositories hold, best first: the older ones have the second alone.
FILES = ("model.safetensors", "pytorch_model.bin")


def cache_folder() -> Path:
    """Where fetched models lie."""
    return Path(constants.HF_HUB_CACHE)


def is_offline() -> bool:
    """Whether the environment forbids to fetch anything."""
    return bool(constants.HF_HUB_OFFLINE)


def cached(name: str) -> Path | None:
    """The weights file of a repository in the cache, or None."""
    for file in FILES:
        found = try_to_load_from_cache(name, file, cache_dir=constants.HF_HUB_CACHE)
        if isinstance(found, str):
            return Path(found)
    return None


def fetch(name: str) -> Path:
    """The weights file of a repository, downloaded unless the cache has it. Raises InputError when neither works."""
    found = cached(name)
    try:
        return found or _download(name)
    except Exception as error:  # a connection fails in as many ways as there are layers below it
        raise InputError(_advice(name, _reason(error))) from error


def tokeniser_advice(arch: str, name: str, error: Exception) -> str:
    """What to do when the tokeniser of an open_clip architecture, a repository, is neither here nor to be had."""
    folder = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    return (
        f"the tokeniser of {arch} ({name}) is not in the cache ({constants.HF_HUB_CACHE}) and could not be fetched: "
        f"{_reason(error)}. With a network and without HF_HUB_OFFLINE it is fetched by itself, or ahead by "
        f"""`python -c "import open_clip; open_clip.get_tokenizer('{arch}')"`. """
        f"Without, run that where there is one, and copy {folder.name} from the cache there to {folder}"
    )


def _download(name: str) -> Path:
    """The best weights file that the repository has."""
    best, older = FILES
    try:
        return Path(hf_hub_download(name, best, cache_dir=constants.HF_HUB_CACHE))
    except RemoteEntryNotFoundError:
        return Path(hf_hub_download(name, older, cache_dir=constants.HF_HUB_CACHE))


def _reason(error: Exception) -> str:
    """What went wrong, in a line; a failed connection is told by its cause."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set, so that nothing is downloaded"
    return first_line(error.__cause__ or error).rstrip(".")


def _advice(name: str, reason: str) -> str:
    """What to do when weights are neither here nor to be had."""
    folder = name.rsplit("/", maxsplit=1)[-1]
    return (
        f"the weights of {name} are not in the cache ({constants.HF_HUB_CACHE}) and could not be fetched: {reason}. "
        f"With a network and without HF_HUB_OFFLINE they are fetched by themselves, or ahead by `hf download {name}`. "
        f"Without, run `hf download {name} --local-dir {folder}` where there is one, copy the folder and pass it: "
        f"--model ./{folder}"
    )
