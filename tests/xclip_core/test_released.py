"""Released names: all of them, what they stand for, and the hub's cache they are read from."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import InputError
from tests import hub
from tests.hub import in_a_process, put_into_cache
from tests.models import TINY, random_state, save_hf_bin_folder, save_hf_file, save_safetensors
from xclip_core import canonical_source, load
from xclip_core.released import RELEASED

B32 = "microsoft/xclip-base-patch32"
B16 = "microsoft/xclip-base-patch16"

# Spec §0, written out: name, the authors' file, architecture, frames, pixels.
TABLE = """
xclip-base-patch32                       k400_32_8.pth       B/32  8 224
xclip-base-patch32-16-frames             k400_32_16.pth      B/32 16 224
xclip-base-patch16                       k400_16_8.pth       B/16  8 224
xclip-base-patch16-16-frames             k400_16_16.pth      B/16 16 224
xclip-large-patch14                      k400_14_8.pth       L/14  8 224
xclip-large-patch14-16-frames            k400_14_16_336.pth  L/14 16 336
xclip-base-patch16-kinetics-600          k600_16_8.pth       B/16  8 224
xclip-base-patch16-kinetics-600-16-frames k600_16_16.pth     B/16 16 224
xclip-large-patch14-kinetics-600         k600_14_8.pth       L/14  8 224
xclip-base-patch16-hmdb-2-shot           few_hmdb_2.pth      B/16 32 224
xclip-base-patch16-hmdb-4-shot           few_hmdb_4.pth      B/16 32 224
xclip-base-patch16-hmdb-8-shot           few_hmdb_8.pth      B/16 32 224
xclip-base-patch16-hmdb-16-shot          few_hmdb_16.pth     B/16 32 224
xclip-base-patch16-ucf-2-shot            few_ucf_2.pth       B/16 32 224
xclip-base-patch16-ucf-4-shot            few_ucf_4.pth       B/16 32 224
xclip-base-patch16-ucf-8-shot            few_ucf_8.pth       B/16 32 224
xclip-base-patch16-ucf-16-shot           few_ucf_16.pth      B/16 32 224
xclip-base-patch16-zero-shot             zero.pth            B/16 32 224
"""


def test_the_table_is_the_specifications():
    found = [
        [x.name.removeprefix("microsoft/"), x.official_file, x.architecture, str(x.frames), str(x.image_size)]
        for x in RELEASED.values()
    ]
    assert found == [line.split() for line in TABLE.strip().splitlines()]


def test_a_released_name_is_its_own_canonical_source():
    assert {canonical_source(name) for name in RELEASED} == set(RELEASED)


# The cache, and into it


LOAD = f"""
from xclip_core import load
from xclip_core.download import cached
model = load({B32!r})
print(model.provenance.source, model.provenance.layout, model.provenance.weights_hash, cached({B32!r}))
"""


@pytest.mark.parametrize("save", [save_hf_file, save_hf_bin_folder], ids=["safetensors", "bin"])
def test_a_released_model_is_read_from_the_cache_without_a_network(save, tmp_path):
    snapshot = put_into_cache(tmp_path / "hub", B32, save)
    run = in_a_process(LOAD, tmp_path, HF_HUB_OFFLINE="1")
    assert run.returncode == 0, run.stderr
    source, layout, digest, path = run.stdout.split()
    assert (source, layout) == (B32, "hf")
    assert digest == load(save_safetensors(random_state(TINY), tmp_path)).provenance.weights_hash
    assert Path(path).parent == snapshot


LOAD_BOTH = f"""
from xclip_core import load
for name in ({B32!r}, {B16!r}):
    print(load(name).provenance.weights_hash)
"""


def test_released_models_are_fetched_once_with_progress_and_then_no_hub_is_asked(tmp_path):
    """The one repository has both files, the other the old one alone. Then the hub is gone."""
    both, old = tmp_path / "both", tmp_path / "old"
    both.mkdir()
    old.mkdir()
    new, other = random_state(seed=1), random_state(seed=2)
    save_hf_file(new, both)
    (both / "pytorch_model.bin").write_text("not to be read where there is the other")
    (both / "config.json").write_text("{}")
    save_hf_bin_folder(other, old)
    here = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
    with hub.serve({B32: both, B16: old}) as served:
        # Where stderr is no terminal, as here, tqdm is silent unless told.
        run = in_a_process(LOAD_BOTH, tmp_path / "home", HF_ENDPOINT=served.url, TQDM_POSITION="-1", **here)
    assert run.returncode == 0, run.stderr
    digests = [load(save_safetensors(state, tmp_path)).provenance.weights_hash for state in (new, other)]
    assert run.stdout.split() == digests
    for file in ("model.safetensors", "pytorch_model.bin"):
        assert f"{file}: 100%" in run.stderr
    brought = [request for request in served.asked if request.startswith("GET /store")]
    assert brought == [f"GET /store/{B32}/model.safetensors", f"GET /store/{B16}/pytorch_model.bin"]

    again = in_a_process(LOAD_BOTH, tmp_path / "home", HF_ENDPOINT=served.url, **here)
    assert again.returncode == 0, again.stderr
    assert (again.stdout.split(), again.stderr) == (digests, "")


def test_what_is_neither_cached_nor_to_be_fetched_says_what_to_do(tmp_path):
    run = in_a_process(LOAD, tmp_path, HF_HUB_OFFLINE="1")
    message = run.stderr.strip().splitlines()[-1]
    assert message.startswith(f"schemas.errors.InputError: the weights of {B32} are not in the cache ({tmp_path}/hub)")
    for advice in (
        "HF_HUB_OFFLINE is set",
        f"`hf download {B32}`",
        f"`hf download {B32} --local-dir xclip-base-patch32`",
        "--model ./xclip-base-patch32",
    ):
        assert advice in message


@pytest.mark.slow  # huggingface_hub tries for 25 s
def test_a_hub_that_cannot_be_reached_is_told_by_its_cause(tmp_path):
    """A port of this machine where nobody listens."""
    run = in_a_process(LOAD, tmp_path, HF_ENDPOINT="http://127.0.0.1:9", NO_PROXY="127.0.0.1")
    message = run.stderr.strip().splitlines()[-1]
    assert "could not be fetched:" in message
    assert "refused" in message.lower() or "connect" in message.lower()
    assert "--model ./xclip-base-patch32" in message


@pytest.mark.parametrize("name", ["xclip-base-patch32", "microsoft/xclip-base-patch-32", "xclip-base-patch32-8-frames"])
def test_a_near_miss_is_told_the_name(name):
    with pytest.raises(InputError, match=rf"there is no model '{name}'; did you mean microsoft/xclip-base-patch32"):
        load(name)
