"""Words: CLIP's byte-pair tokeniser, or that of another open_clip model, with the reference's rules about length.

open_clip cuts long texts silently; the reference raises, and so do we, because a cut query is another query.
Rows are cut to the longest text of the batch, which is exact (spec §5).
"""

# K texts, L tokens

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from schemas.errors import InputError, first_line

CONTEXT_LENGTH = 77


@lru_cache(maxsize=1)
def _tokeniser() -> Any:
    """The BPE tables; about 0.1 s to read, the same for every model."""
    return _tokenizer_module().SimpleTokenizer()


def _tokenizer_module() -> ModuleType:
    """`open_clip.tokenizer` without its package, which would import torchvision, timm and transformers for all models.

    The file stands alone; should a later open_clip change that, the package is imported after all.
    """
    package = importlib.util.find_spec("open_clip")
    assert package is not None, "open_clip_torch is a dependency of this package"
    file = Path(*package.submodule_search_locations or (), "tokenizer.py")
    spec = importlib.util.spec_from_file_location(f"{__name__}.of_open_clip", file)
    assert spec is not None, "the name ends in .py"
    assert spec.loader is not None, "the name ends in .py"
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (ImportError, OSError):  # it imports its neighbours, or lies somewhere else
        return importlib.import_module("open_clip.tokenizer")
    return module


def tokenise(texts: Sequence[str], *, context_length: int = CONTEXT_LENGTH, arch: str | None = None) -> Tensor:
    """Texts to int64 token ids K x L: start, words, end, then zeros; L is that of the longest text.

    With `arch`, one of open_clip's architectures, the ids are those of its own tokeniser, padded its own way to L =
    `context_length`. Raises InputError for no texts, an empty text, or one longer than `context_length` tokens.
    """
    if isinstance(texts, str) or not texts:
        raise InputError(f"expected a list of one or more texts, got {texts!r}")
    if arch is not None:
        return _tokenise_for(arch, list(texts), context_length)
    rows = [_encode(text, context_length) for text in texts]
    token_ids_KL = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    for k, row in enumerate(rows):
        token_ids_KL[k, : len(row)] = torch.tensor(row)
    return token_ids_KL


@lru_cache(maxsize=4)
def _tokeniser_of(arch: str) -> Any:
    """open_clip's tokeniser for an architecture."""
    import open_clip

    try:
        return open_clip.get_tokenizer(arch)
    except ImportError as error:
        raise InputError(
            f"the tokeniser of {arch} needs a library that is not here ({first_line(error)}); "
            "try `pip install transformers`"
        ) from error
    except Exception as error:  # fetching one fails in as many ways as there are layers below it
        raise InputError(_advice(arch, error)) from error


def _advice(arch: str, error: Exception) -> str:
    """What to do about a tokeniser that cannot be had."""
    import open_clip

    from xclip_core import download

    name = open_clip.get_model_config(arch)["text_cfg"].get("hf_tokenizer_name")
    if name is None:
        return f"the tokeniser of {arch} is not to be had ({first_line(error)})"
    return download.tokeniser_advice(arch, name, error)


def _tokenise_for(arch: str, texts: list[str], context_length: int) -> Tensor:
    """Texts to token ids K x L of an architecture's own tokeniser, which would cut a long text in silence."""
    tokeniser = _tokeniser_of(arch)
    for text in texts:
        if not text.strip():
            raise InputError(f"the text {text!r} is empty; give at least one word")
    token_ids_KL: Tensor = tokeniser(texts, context_length=context_length)
    # A text that fits is the same with room for one token more, which is then padding, as it is behind a short text.
    roomy_KM = tokeniser([*texts, "a"], context_length=context_length + 1)
    fits_K = (roomy_KM[:-1, :-1] == token_ids_KL).all(dim=1) & (roomy_KM[:-1, -1] == roomy_KM[-1, -1])
    if not fits_K.all():
        text = texts[int(fits_K.int().argmin())]
        raise InputError(f"the text {text[:60]!r}... has more tokens than the {context_length} of {arch}; shorten it")
    return token_ids_KL


def _encode(text: str, context_length: int) -> list[int]:
    """One text to its token ids, start and end included."""
    tokeniser = _tokeniser()
    words = tokeniser.encode(text)
    if not words:
        raise InputError(f"the text {text!r} is empty; give at least one word")
    if len(words) + 2 > context_length:
        raise InputError(
            f"the text {text[:60]!r}... has {len(words)} tokens and the model takes {context_length - 2}; shorten it"
        )
    return [tokeniser.sot_token_id, *words, tokeniser.eot_token_id]


def split_camel_case(text: str) -> str:
    """Words that were written as one, apart: `ApplyEyeMakeup -> Apply Eye Makeup`, `BBQGrill -> BBQ Grill`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", text)
