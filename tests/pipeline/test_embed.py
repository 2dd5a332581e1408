"""Decoded units to vectors: the model's own, unit by unit, whoever shares the pass."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import cuda_passes, embed
from pipeline.contexts import unpack
from pipeline.embed import Embed
from schemas.errors import InputError, ModelError, ShapeError
from schemas.records import DecodedUnit
from tests.models import WORDED, random_frames
from tests.pipeline.factories import unit_of, video_row
from xclip_core import XClip, encode_video_with_context, quantised
from xclip_core.quantised import ByteVideo
from xclip_core.released import ARCHITECTURES

FLOAT16_STEP = 2.0**-11  # of numbers just below 1


def decoded_unit(name: str, clips: int, seed: int) -> DecodedUnit:
    unit = unit_of(video_row(f"/videos/{name}.mp4"), clips)
    frames = random_frames(WORDED, clips=clips, seed=seed).numpy()
    return DecodedUnit(
        unit, unit.windows, frames, tuple(f"{name}{n}".encode() for n in range(clips)), (5,) * clips, 0.25
    )


@pytest.fixture(scope="module")
def units() -> list[DecodedUnit]:
    return [decoded_unit(name, clips, seed) for seed, (name, clips) in enumerate([("a", 3), ("b", 1), ("c", 18)])]


@pytest.fixture(scope="module")
def stage(tiny_weights: Path) -> Embed:
    return Embed(str(tiny_weights), "float16", precision="float32", threads=2)


def test_vectors_and_contexts_are_those_of_the_model(stage: Embed, units: list[DecodedUnit], tiny_model: XClip) -> None:
    for unit, made in zip(units, stage(units), strict=True):
        video_NE, context_NPE = encode_video_with_context(tiny_model, torch.from_numpy(unit.frames_NTHWC))
        np.testing.assert_allclose(made.embedding_NE, video_NE.numpy(), atol=FLOAT16_STEP)
        stored = [unpack(context, WORDED.patches, WORDED.embed_dim) for context in made.contexts]
        np.testing.assert_allclose(np.stack(stored), context_NPE.numpy(), rtol=1e-3, atol=1e-4)


def test_vectors_have_unit_length_at_float16_precision(stage: Embed, units: list[DecodedUnit]) -> None:
    for made in stage(units):
        assert made.embedding_NE.dtype == np.float32
        np.testing.assert_array_equal(made.embedding_NE, made.embedding_NE.astype(np.float16).astype(np.float32))
        np.testing.assert_allclose(np.linalg.norm(made.embedding_NE, axis=1), 1, atol=1e-3)


def test_everything_else_goes_through_in_order(stage: Embed, units: list[DecodedUnit]) -> None:
    made = stage(units)
    for name in ("unit", "windows", "thumbnails", "intact_samples", "decode_s"):
        assert [getattr(each, name) for each in made] == [getattr(each, name) for each in units]
    assert [len(each.embedding_NE) for each in made] == [len(each.contexts) for each in made] == [3, 1, 18]
    assert all(each.embed_s > 0 for each in made)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("clips_per_pass", [1, 4, 100])
def test_neighbours_pass_size_and_threads_change_no_bit(
    clips_per_pass: int, precision, tiny_weights: Path, units: list[DecodedUnit], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = Embed(str(tiny_weights), "float16", precision=precision, threads=3)(units)
    monkeypatch.setattr(embed, "CLIPS_PER_PASS", clips_per_pass)
    stage = Embed(str(tiny_weights), "float16", precision=precision)
    alone = [made for unit in units for made in stage([unit])]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.embedding_NE, other.embedding_NE)
        assert one.contexts == other.contexts


def test_a_unit_says_how_it_was_embedded(tiny_weights: Path, units: list[DecodedUnit]) -> None:
    (made,) = Embed(str(tiny_weights), "none", precision="bfloat16", threads=2)(units[:1])
    assert made.encoder == "bfloat16 on cpu, 2 threads"


@pytest.fixture
def takes_bytes(multiplies_bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has `auto` try them, as with a wide model where they are faster."""
    monkeypatch.setattr(embed, "pays", lambda config, dtype: True)
    monkeypatch.setattr(embed, "faster_dtype", lambda device: torch.float32)


NEAR = r"median cosine of the first clips (0\.99\d\d|1\.0000)"


@pytest.mark.usefixtures("multiplies_bytes")
def test_bytes_say_how_near_they_came(tiny_weights: Path, units: list[DecodedUnit]) -> None:
    (made,) = Embed(str(tiny_weights), "none", precision="int8", threads=2)(units[:1])
    assert re.fullmatch(f"int8 on cpu, 2 threads, {NEAR}", made.encoder)


@pytest.mark.usefixtures("takes_bytes")
def test_bytes_are_taken_unasked_where_they_keep_near(tiny_weights: Path, units: list[DecodedUnit]) -> None:
    made, asked = (Embed(str(tiny_weights), "none", precision=precision)(units) for precision in ("auto", "int8"))
    assert re.fullmatch(f"int8 on cpu, 1 threads, {NEAR}", made[0].encoder)
    for one, other in zip(made, asked, strict=True):
        np.testing.assert_array_equal(one.embedding_NE, other.embedding_NE)


@pytest.mark.usefixtures("takes_bytes")
def test_where_they_do_not_clips_are_encoded_as_without_them(
    tiny_weights: Path, units: list[DecodedUnit], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantised, "CLOSE_UNASKED", 1.01)
    made, plain = (Embed(str(tiny_weights), "int8", precision=precision)(units) for precision in ("auto", "float32"))
    assert re.fullmatch(f"float32 on cpu, 1 threads, int8 too coarse, {NEAR}, least 0\\.99\\d\\d", made[0].encoder)
    for one, other in zip(made, plain, strict=True):
        np.testing.assert_array_equal(one.embedding_NE, other.embedding_NE)
        assert one.contexts == other.contexts


def test_narrow_models_are_not_tried_in_bytes(
    tiny_weights: Path, units: list[DecodedUnit], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantised, "gain", lambda dtype: 9.0)
    (made,) = Embed(str(tiny_weights), "none")(units[:1])
    assert re.fullmatch(r"(float32|bfloat16) on cpu, 1 threads", made.encoder)


@pytest.mark.usefixtures("takes_bytes")
@pytest.mark.parametrize(("clips", "encoder"), [(23, "float32"), (24, "int8"), (None, "int8")])
def test_a_run_of_few_clips_does_not_try_them(clips, encoder, tiny_weights: Path, units: list[DecodedUnit]) -> None:
    (made,) = Embed(str(tiny_weights), "none", clips=clips)(units[:1])
    assert made.encoder.startswith(f"{encoder} on cpu")


@pytest.mark.usefixtures("takes_bytes")
@pytest.mark.parametrize(
    ("clips", "threads", "seen"), [(8, 1, [0, 2, 4, 6]), (3, 1, [0, 1, 2]), (5, 5, [0, 1, 2, 3, 4])]
)
def test_bytes_are_tried_on_clips_from_all_over_the_first(
    clips, threads, seen, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[torch.Tensor] = []
    settle = ByteVideo.settle

    def watched(self, given, each=map) -> None:
        tried.append(given)
        settle(self, given, each)

    monkeypatch.setattr(ByteVideo, "settle", watched)
    frames = random_frames(WORDED, clips=clips)
    list(Embed(str(tiny_weights), "none", threads=threads).encode(frames))
    assert torch.equal(tried[0], frames[seen])


def test_bytes_are_for_cpus_that_multiply_them(monkeypatch) -> None:
    def refuse() -> None:
        raise ModelError("not here")

    monkeypatch.setattr(embed, "byte_levels", refuse)
    embed.check_precision("auto", "cuda")
    embed.check_precision("bfloat16", "cpu")
    with pytest.raises(InputError, match="--precision int8 is for CPUs, and a GPU embeds here; expected auto"):
        embed.check_precision("int8", "cuda", is_here=False)
    with pytest.raises(InputError, match="--precision int8 is for CPUs, and a GPU embeds here; expected auto"):
        _ = Embed("none", "none", "cuda", precision="int8").encode
    embed.check_precision("int8", "cpu", is_here=False)
    with pytest.raises(ModelError, match="not here"):
        embed.check_precision("int8", "cpu")


@pytest.mark.parametrize(
    ("architecture", "frames", "clips"), [("B/32", 8, 8), ("B/32", 16, 4), ("B/16", 8, 2), ("L/14", 8, 1)]
)
def test_a_pass_is_as_many_clips_as_fit_into_memory_that_is_kept(architecture, frames, clips) -> None:
    config = replace(ARCHITECTURES[architecture], frames=frames)
    assert embed.clips_per_pass(config, torch.bfloat16) == clips
    assert embed.clips_per_pass(config, torch.float32) == 1


@pytest.mark.parametrize(
    ("count", "threads", "sizes"),
    [(1, 4, [1]), (11, 2, [6, 5]), (64, 2, [16] * 4), (33, 2, [9, 8, 8, 8]), (3, 4, [1, 1, 1]), (17, 1, [9, 8])],
)
def test_clips_are_shared_out_evenly(count, threads, sizes) -> None:
    seen = []
    passes = embed.OnCpu(lambda frames: seen.append(len(frames)), threads, most=16)
    list(passes(torch.zeros(count, 1)))
    assert sorted(seen, reverse=True) == sizes


@pytest.mark.parametrize(
    ("speeds", "expected"),
    [
        ({16: 100, 32: 180, 64: 200, 128: 201}, 64),  # the last doubling hardly pays
        ({16: 100, 32: 180, 64: 178, 128: 200}, 128),  # one that does not, between those that do
        ({16: 100, 32: 0}, 16),  # does not fit into memory
        ({16: 0}, 16),
        ({16: 100, 32: 180, 64: 300, 128: 400}, 128),
    ],
)
def test_passes_are_no_larger_than_pays(speeds, expected) -> None:
    assert cuda_passes.best_size(speeds.__getitem__, cuda_passes.SIZES) == expected


def test_a_full_call_is_whole_passes() -> None:
    assert embed.CLIPS_PER_CUDA_CALL % cuda_passes.SIZES[1] == 0


@pytest.mark.gpu
def test_on_cuda_too_little_memory_changes_no_vector(tiny_weights: Path, units: list[DecodedUnit]) -> None:
    stage = Embed(str(tiny_weights), "float16", device="cuda")
    expected_NE = np.concatenate([made.embedding_NE for made in stage(units)])
    encode, failed = stage.encode.encoder, []

    def greedy(frames_BTHWC: torch.Tensor) -> cuda_passes.Vectors:
        if len(frames_BTHWC) > 4:
            failed.append(len(frames_BTHWC))
            raise torch.OutOfMemoryError
        return encode(frames_BTHWC)

    passes = cuda_passes.OnCuda(greedy, "cuda")
    passes.size = 64
    frames_NTHWC = torch.from_numpy(np.concatenate([unit.frames_NTHWC for unit in units]))
    found_NE = torch.cat([video_BE for video_BE, _ in passes(frames_NTHWC)])
    assert failed == [64, 32, 16, 8]
    assert passes.size == 4
    np.testing.assert_allclose(found_NE, expected_NE, atol=2 * FLOAT16_STEP)


@pytest.mark.gpu
@pytest.mark.parametrize("size", [1, 8, 32])
def test_on_cuda_a_recorded_pass_is_the_encoder(size: int, tiny_weights: Path, units: list[DecodedUnit]) -> None:
    encoder = Embed(str(tiny_weights), "none", device="cuda").encode.encoder
    passes = cuda_passes.OnCuda(encoder, "cuda")
    passes.size = size
    frames_NTHWC = torch.from_numpy(np.concatenate([unit.frames_NTHWC for unit in units]))
    expected = [x.cpu() for x in encoder(frames_NTHWC.cuda())]
    for _ in range(2):
        found = [torch.cat(x) for x in zip(*passes(frames_NTHWC), strict=True)]
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=0.02, rtol=0.02)


@pytest.mark.gpu
def test_on_cuda_neighbours_change_no_vector(tiny_weights: Path, units: list[DecodedUnit]) -> None:
    stage = Embed(str(tiny_weights), "float16", device="cuda")
    together = stage(units)
    alone = [made for unit in units for made in stage([unit])]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.embedding_NE, other.embedding_NE)
        assert one.contexts == other.contexts


@pytest.mark.parametrize(("code", "size_bytes"), [("int8", 9 * (128 + 4)), ("float16", 2 * 9 * 128), ("none", 0)])
def test_the_context_code_decides_how_much_is_stored(code, size_bytes, tiny_weights: Path, units) -> None:
    (made,) = Embed(str(tiny_weights), code)(units[:1])
    assert [len(context) for context in made.contexts] == [size_bytes] * 3


def test_the_stage_travels_without_its_model(tiny_weights: Path, units: list[DecodedUnit]) -> None:
    used = Embed(str(tiny_weights), "none")
    fresh = pickle.dumps(used)
    assert len(fresh) < 500
    before = used(units[:1])
    after = pickle.loads(fresh)(units[:1])
    np.testing.assert_array_equal(before[0].embedding_NE, after[0].embedding_NE)


def test_frames_of_another_size_are_a_bug_and_no_bad_video(stage: Embed, units: list[DecodedUnit]) -> None:
    unit = units[1]
    small = DecodedUnit(unit.unit, unit.windows, unit.frames_NTHWC[:, :, :8, :8], unit.thumbnails, (5,), 0.0)
    with pytest.raises(ShapeError, match="this model takes uint8 RGB"):
        stage([small])
