"""Settings, and the space they make: what decides a vector is in its name, what does not is not."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, asdict, replace

import pytest

from pipeline.settings import IndexSettings, Sampling, ShotRules, Space, space_of
from schemas.errors import InputError
from tests.models import TINY

SAMPLING = Sampling(window_s=10, stride_s=10, frames=5)
SHOTS = replace(SAMPLING, tolerance_s=None, shots=ShotRules())
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
        pytest.param({"sampling": replace(SAMPLING, tolerance_s=None)}, id="tolerance"),
        pytest.param({"sampling": SHOTS}, id="segment"),
        pytest.param({"sampling": replace(SHOTS, shots=ShotRules(floor=30))}, id="what a cut is"),
        pytest.param({"preprocessing": "another way"}, id="preprocessing"),
    ],
)
def test_whatever_decides_a_vector_makes_another_space(change: dict) -> None:
    assert replace(SPACE, **change).id != SPACE.id


@pytest.mark.parametrize(
    "change",
    [
        {"context": "none"},
        {"engine": "local"},
        {"device": "cuda"},
        {"precision": "float32"},
        {"decoder": "cuda"},
        {"model": "elsewhere"},
    ],
)
def test_how_and_where_vectors_are_made_does_not(change: dict, tiny_model) -> None:
    exact = IndexSettings(tolerance_s=0.0)
    assert space_of(tiny_model, replace(exact, **change)).id == space_of(tiny_model, exact).id


def test_a_spaces_name_is_twelve_hex_digits_and_stays() -> None:
    assert len(SPACE.id) == 12
    assert int(SPACE.id, 16) >= 0
    assert Space(weights_hash="w", model=TINY, sampling=Sampling(window_s=10, stride_s=10, frames=5)).id == SPACE.id


def test_the_stride_is_the_window_unless_said_otherwise() -> None:
    loose = {"frames": 8, "tolerance_s": None}
    asked = IndexSettings(model="any", window_s=4.0)
    assert asked.sampling(8) == Sampling(window_s=4, stride_s=4, **loose)
    assert replace(asked, stride_s=2.0).sampling(8) == Sampling(window_s=4, stride_s=2, **loose)


def test_a_model_of_motion_takes_frames_that_are_nearly_the_very_ones() -> None:
    assert IndexSettings(window_s=8.0).sampling(8).tolerance_s == 1 / 32
    assert IndexSettings(window_s=8.0, tolerance_s=0.3).sampling(8).tolerance_s == 0.3


def test_a_space_knows_its_weights_and_takes_the_models_frames(tiny_model) -> None:
    space = space_of(tiny_model, IndexSettings(model="any", window_s=3.0))
    assert space.weights_hash == tiny_model.provenance.weights_hash
    assert space.sampling == Sampling(window_s=3, stride_s=3, frames=tiny_model.config.frames, tolerance_s=None)


@pytest.mark.parametrize(
    ("settings", "name"), [(SAMPLING, "window_s"), (IndexSettings(), "context"), (SPACE, "weights_hash")]
)
def test_settings_cannot_be_changed_after_they_were_checked(settings, name: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(settings, name, 1)


def test_settings_and_spaces_from_before_there_was_a_tolerance_are_those_of_exact_frames() -> None:
    exact = IndexSettings(tolerance_s=0.0)
    before = {name: value for name, value in asdict(exact).items() if name != "tolerance_s"}
    assert IndexSettings.stored(before) == exact
    assert IndexSettings.stored(asdict(IndexSettings())) == IndexSettings()
    assert SPACE.id == "44f666ca2802"
    loose = replace(SPACE, sampling=replace(SAMPLING, tolerance_s=None))
    assert len({SPACE.id, loose.id, replace(SPACE, sampling=replace(SAMPLING, tolerance_s=0.3)).id}) == 3


@pytest.mark.parametrize("tolerance_s", [-0.1, 10.1, float("nan")])
def test_a_tolerance_is_neither_negative_nor_longer_than_a_window(tolerance_s: float) -> None:
    with pytest.raises(InputError, match="expected 0 to the window's length"):
        replace(SAMPLING, tolerance_s=tolerance_s)


def test_settings_and_spaces_from_before_windows_followed_shots_are_those_of_fixed_windows() -> None:
    before = {name: value for name, value in asdict(IndexSettings()).items() if name != "segment"}
    assert IndexSettings.stored(before) == IndexSettings()
    assert IndexSettings.stored(asdict(IndexSettings(segment="shots"))) == IndexSettings(segment="shots")
    for sampling in (SAMPLING, SHOTS, IndexSettings(segment="shots").sampling(8)):
        assert Sampling.stored(asdict(sampling)) == sampling
    stored = {name: value for name, value in asdict(SAMPLING).items() if name != "shots"}
    assert Sampling.stored(stored) == SAMPLING
    assert (
        len({SPACE.id, *(replace(SPACE, sampling=s).id for s in (SHOTS, replace(SHOTS, shots=ShotRules(ratio=4))))})
        == 3
    )
    assert SPACE.id == "44f666ca2802", "archives that are there keep their spaces"


@pytest.mark.parametrize("change", [{"stride_s": 5.0}, {"tolerance_s": 0.0}])
def test_windows_that_follow_shots_have_no_stride_and_no_tolerance(change: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected --segment fixed"):
        replace(SHOTS, **change)
    with pytest.raises(InputError, match="leave out --stride"):
        IndexSettings(segment="shots", **change).sampling(8)
