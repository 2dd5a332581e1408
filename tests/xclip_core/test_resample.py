"""Other frames and other pictures than a model was trained with: on request, as transformers does it, and said."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from schemas.errors import InputError
from tests.models import TINY, WORDED, random_inputs, random_state, save_safetensors
from tests.xclip_core.reference import hf_model
from xclip_core import load
from xclip_core.resample import stretch_frames, stretch_patches

T, S, P = TINY.frames, TINY.image_size, TINY.patch_size


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return save_safetensors(random_state(), tmp_path_factory.mktemp("weights"))


def test_nothing_changes_unless_it_is_asked_for(file):
    plain, asked = load(file), load(file, frames=T, image_size=S)
    assert asked.config == plain.config
    assert asked.provenance == plain.provenance
    assert plain.provenance.notes == ()
    assert torch.equal(asked.mit.positional_embedding, plain.mit.positional_embedding)


@pytest.mark.parametrize(("frames", "image_size"), [(T + 3, S), (1, S), (T, S + 2 * P), (T, P), (2 * T, 2 * S)])
def test_a_resampled_model_takes_what_it_was_asked_for_and_says_so(frames, image_size, file, caplog):
    model = load(file, frames=frames, image_size=image_size)
    assert model.config == replace(TINY, frames=frames, image_size=image_size)
    pixels, token_ids = random_inputs(model.config)
    video, context = model.video(pixels.float())
    assert model.score(video, context, model.text(token_ids)).isfinite().all()
    notes = model.provenance.notes
    assert len(notes) == (frames != T) + (image_size != S)
    assert all("no accuracy is published" in note for note in notes)
    assert all(note in caplog.text for note in notes)
    assert model.provenance.weights_hash == load(file).provenance.weights_hash, "the file is the same"


def test_patch_table_is_that_of_transformers():
    """Bicubic without antialiasing, corners not aligned; the class token's row stays."""
    state = random_state()
    hf = hf_model(TINY, state).vision_model.embeddings
    for side in (2, 4, 7):
        tokens = torch.zeros(1, 1 + side * side, TINY.vision_width)
        expected = hf.interpolate_pos_encoding(tokens, side * P, side * P)[0]
        got = stretch_patches(state["visual.positional_embedding"], side)
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)
        assert torch.equal(got[0], state["visual.positional_embedding"][0])


def test_frame_table_is_stretched_in_a_straight_line():
    table = torch.tensor([0.0, 1.0, 2.0, 3.0])[None, :, None]
    assert stretch_frames(table, 8)[0, :, 0].tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]
    assert stretch_frames(table, 2)[0, :, 0].tolist() == [0.5, 2.5]


def test_tables_keep_their_dtype():
    for dtype in (torch.float16, torch.float32, torch.float64):
        assert stretch_frames(torch.ones(1, 2, 4, dtype=dtype), 5).dtype == dtype
        assert stretch_patches(torch.ones(10, 4, dtype=dtype), 5).dtype == dtype


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ({"frames": 0}, "--frames 0 is not usable; expected at least 1"),
        ({"frames": -8}, "--frames -8 is not usable"),
        ({"image_size": S + 1}, f"--image-size {S + 1} is not usable; expected a multiple of {P}"),
        ({"image_size": 0}, "--image-size 0 is not usable"),
    ],
)
def test_sizes_that_no_table_can_have_are_refused(sizes, reason, file):
    with pytest.raises(InputError, match=reason):
        load(file, **sizes)


def test_a_resampled_model_makes_another_space(tiny_weights):
    from pipeline.settings import IndexSettings, space_of

    spaces = [space_of(load(tiny_weights, **sizes), IndexSettings()).id for sizes in SIZES]
    assert len(set(spaces)) == len(SIZES)


SIZES = ({}, {"frames": WORDED.frames + 1}, {"image_size": WORDED.image_size + WORDED.patch_size})
