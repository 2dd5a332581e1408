"""Settings, and the space they make: what decides a vector is in its name, what does not is not."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest

from pipeline.settings import IndexSettings, Sampling, Space, space_of
from tests.models import TINY

SAMPLING = Sampling(window_s=10, stride_s=10, frames=5)
SPACE = Space(weights_hash="w", model=TINY, sampling=SAMPLING)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"weights_hash": "x"}, id="weights"),
        pytest.param({"model": replace(TINY, frames=8)}, id="frames of the model"),
        pytest.param({"model": replace(TINY, image_size=32)}, id="image size"),
        pytest.param({"sampling": replace(SAMPLING, window_s=9)}, id="window"),
        pytest.param({"sampling": replace(SAMPLING, stride_s=5)}, id="stride"),
        pytest.param({"sampling": replace(SAMPLING, frames=8)}, id="frames of a clip"),
        pytest.param({"preprocessing": "another way"}, id="preprocessing"),
    ],
)
def test_whatever_decides_a_vector_makes_another_space(change: dict) -> None:
    assert replace(SPACE, **change).id != SPACE.id


@pytest.mark.parametrize(
    "change", [{"context": "none"}, {"engine": "local"}, {"device": "cuda"}, {"model": "elsewhere"}]
)
def test_how_and_where_vectors_are_made_does_not(change: dict, tiny_model) -> None:
    assert space_of(tiny_model, IndexSettings(**change)).id == space_of(tiny_model, IndexSettings()).id


def test_a_spaces_name_is_twelve_hex_digits_and_stays() -> None:
    assert len(SPACE.id) == 12
    assert int(SPACE.id, 16) >= 0
    assert Space(weights_hash="w", model=TINY, sampling=Sampling(window_s=10, stride_s=10, frames=5)).id == SPACE.id


def test_the_stride_is_the_window_unless_said_otherwise() -> None:
    assert IndexSettings(window_s=4.0).sampling(8) == Sampling(window_s=4, stride_s=4, frames=8)
    assert IndexSettings(window_s=4.0, stride_s=2.0).sampling(8) == Sampling(window_s=4, stride_s=2, frames=8)


def test_a_space_knows_its_weights_and_takes_the_models_frames(tiny_model) -> None:
    space = space_of(tiny_model, IndexSettings(window_s=3.0))
    assert space.weights_hash == tiny_model.provenance.weights_hash
    assert space.sampling == Sampling(window_s=3, stride_s=3, frames=tiny_model.config.frames)


@pytest.mark.parametrize(
    ("settings", "name"), [(SAMPLING, "window_s"), (IndexSettings(), "context"), (SPACE, "weights_hash")]
)
def test_settings_cannot_be_changed_after_they_were_checked(settings, name: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(settings, name, 1)
