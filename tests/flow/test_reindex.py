"""The scheduled job: all places, the settings of the space that serves, and one space at a time."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from pipeline import flows, indexing, runs
from pipeline.archive import Archive
from pipeline.flows import IndexReport, index
from pipeline.overview import overview
from pipeline.reindexing import reindex
from pipeline.search import search
from pipeline.serving import open_space
from pipeline.settings import Policy, Sampling, Space
from schemas.errors import ArchiveError, InputError, RefusedToRetire
from tests.footage import BROKEN, CLIPS, VIDEOS, film
from tests.models import TINY
from xclip_core.config import FrameMeanConfig

FILES = len(VIDEOS) + len(BROKEN)
YES = Policy(yes=True)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A second place, with one video."""
    film(tmp_path / "other/extra.mp4", "left", "left", colour_seed=11)
    return tmp_path / "other"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "archive"


# --- places


def test_every_place_is_looked_at_again(
    own_pile: Path, other: Path, folder: Path, settings_for, tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_text(f"{other}/extra.mp4\n")
    film(tmp_path / "loose/one.mp4", "right", colour_seed=12)
    for place in (own_pile, tmp_path / "list.txt", f"{tmp_path}/lo*/*.mp4"):
        index(place, folder, settings_for())
    film(own_pile / "new.mp4", "down", colour_seed=13)
    film(tmp_path / "loose/two.mp4", "up", "left", colour_seed=14)
    (own_pile / "sub/up.mp4").unlink()
    report = reindex(folder)
    assert (report.indexed, report.gone, report.unchanged) == (2, 1, FILES - 1 + 2)
    assert runs.places(Archive.open(folder)) == (str(own_pile), str(tmp_path / "list.txt"), f"{tmp_path}/lo*/*.mp4")


def test_a_file_of_a_glob_that_is_nowhere_is_gone(folder: Path, settings_for, tmp_path: Path) -> None:
    for number in range(6):
        film(tmp_path / f"loose/{number}.mp4", "right", colour_seed=20 + number)
    index(f"{tmp_path}/loose/*.mp4", folder, settings_for())
    (tmp_path / "loose/3.mp4").unlink()
    assert index(f"{tmp_path}/loose/*.mp4", folder, settings_for()).gone == 0, "a glob may be narrower than the last"
    assert reindex(folder).gone == 1


def test_a_video_that_moved_from_one_place_to_another_keeps_its_clips(
    own_pile: Path, other: Path, folder: Path, settings_for
) -> None:
    index(own_pile, folder, settings_for())
    index(other, folder, settings_for())
    (other / "extra.mp4").rename(own_pile / "extra.mp4")
    film(other / "stays.mp4", "up", "down", colour_seed=30)
    report = reindex(folder)
    assert (report.moved, report.gone, report.indexed) == (1, 0, 1)


def test_one_missing_place_stops_all_of_it(own_pile: Path, other: Path, folder: Path, settings_for) -> None:
    index(own_pile, folder, settings_for())
    space = index(other, folder, settings_for()).space
    shutil.rmtree(other)
    film(own_pile / "new.mp4", "down", colour_seed=13)
    with pytest.raises(RefusedToRetire, match=r"knows 1 videos there.*--forget .*/other"):
        reindex(folder)
    assert Archive.open(folder).visible_clips(space, ["clip_id"]).num_rows == CLIPS + 2


def test_a_place_that_is_given_up_is_retired_and_not_looked_at_again(
    own_pile: Path, other: Path, folder: Path, settings_for
) -> None:
    index(own_pile, folder, settings_for())
    index(other, folder, settings_for())
    report = reindex(folder, forget=[str(other)])
    assert (report.gone, report.unchanged) == (1, FILES)
    shutil.rmtree(other)
    assert reindex(folder).unchanged == FILES
    with pytest.raises(InputError, match=r"was not indexed from .*/other; it was from: .*/pile"):
        reindex(folder, forget=[str(other)])


def test_nested_places_are_walked_once(own_pile: Path, folder: Path, settings_for) -> None:
    report = index([own_pile, own_pile / "sub", own_pile / "sub/up.mp4"], folder, settings_for())
    assert (report.planned, report.indexed) == (FILES, len(VIDEOS))


def test_an_archive_that_does_not_say_where_it_came_from_says_what_to_do(folder: Path) -> None:
    Archive.create(folder)
    with pytest.raises(ArchiveError, match="do not say where its videos came from; run once: footage index VIDEOS"):
        reindex(folder)


# --- settings and spaces


def test_the_settings_are_those_of_the_space_that_serves(own_pile: Path, folder: Path, settings_for) -> None:
    first = index(own_pile, folder, settings_for(window_s=1.0, context="none"))
    film(own_pile / "new.mp4", "down", "up", colour_seed=13)
    report = reindex(folder)
    assert (report.space, report.clips) == (first.space, 4)
    stored = runs.serving_run(Archive.open(folder))["settings"]["index"]
    assert (stored["window_s"], stored["context"]) == (1.0, "none")


def test_the_old_space_serves_until_the_new_one_covers_it(own_pile: Path, folder: Path, settings_for) -> None:
    old = index(own_pile, folder, settings_for())
    part = index(own_pile / "sub", folder, settings_for(window_s=1.0))
    assert not part.serves
    assert open_space(folder).space == old.space
    assert [line.state for line in overview(folder).spaces] == ["serves", "building"]
    assert len(search(open_space(folder), "anything", top=99).hits) == CLIPS
    assert len(search(open_space(folder, space=part.space), "anything", top=99).hits) == 2
    assert reindex(folder).space == old.space

    whole = index(own_pile, folder, settings_for(window_s=1.0))
    assert whole.serves
    assert (whole.space, whole.unchanged) == (part.space, 1)
    assert open_space(folder).space == whole.space
    assert [line.state for line in overview(folder).spaces] == ["retired", "serves"]
    assert overview(folder).clips == 2 * CLIPS
    assert overview(folder, old.space).clips == CLIPS
    assert reindex(folder).space == whole.space


def test_a_new_space_that_was_interrupted_is_resumed_while_the_old_one_serves(
    own_pile: Path, folder: Path, settings_for, monkeypatch
) -> None:
    old = index(own_pile, folder, settings_for())
    monkeypatch.setattr(indexing, "COMMIT_EVERY_S", 0.0)

    def interrupt(progress) -> None:
        if progress.phase == "index":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index(own_pile, folder, settings_for(window_s=1.0), watch=interrupt)
    assert open_space(folder).space == old.space
    report = index(own_pile, folder, settings_for(window_s=1.0))
    assert report.planned < FILES
    assert report.serves
    assert Archive.open(folder).visible_clips(report.space, ["clip_id"]).num_rows == 2 * CLIPS


def test_what_vanished_in_between_does_not_hold_the_new_space_up(own_pile: Path, folder: Path, settings_for) -> None:
    index(own_pile, folder, settings_for())
    (own_pile / "sub/up.mp4").unlink()
    assert index(own_pile, folder, settings_for(window_s=1.0)).serves


def test_a_place_that_was_not_looked_at_holds_the_new_space_up(
    own_pile: Path, other: Path, folder: Path, settings_for
) -> None:
    index(own_pile, folder, settings_for())
    index(other, folder, settings_for())
    shutil.rmtree(other)
    assert not index(own_pile, folder, settings_for(window_s=1.0)).serves


def test_a_space_that_is_to_be_kept_is_kept(own_pile: Path, folder: Path, settings_for) -> None:
    index(own_pile, folder, settings_for())
    index(own_pile, folder, settings_for(window_s=1.0), policy=Policy(keep_space=True))
    assert [line.state for line in overview(folder).spaces] == ["kept", "serves"]


def test_an_unknown_space_is_an_error_that_lists_the_known(indexed: tuple[Path, IndexReport]) -> None:
    with pytest.raises(ArchiveError, match=f"has no space 'nonsense'; it has {indexed[1].space}"):
        open_space(indexed[0], space="nonsense")


# --- no model where there is nothing to do


def test_a_run_that_finds_nothing_loads_no_model(own_pile: Path, folder: Path, settings_for, monkeypatch) -> None:
    first = index(own_pile, folder, settings_for())
    monkeypatch.setattr(flows, "_loaded", lambda _: pytest.fail("the model was loaded"))
    for report in (index(own_pile, folder, settings_for()), reindex(folder)):
        assert (report.unchanged, report.planned, report.space) == (FILES, 0, first.space)
    assert [run["state"] for run in Archive.open(folder).runs()] == ["started", "finished"] * 3
    assert runs.remember(Archive.open(folder), settings_for(window_s=1.0)) is None


def test_weights_that_were_replaced_are_read_again(
    own_pile: Path, folder: Path, settings_for, tiny_weights, tmp_path
) -> None:
    weights = Path(shutil.copy(tiny_weights, tmp_path / "model.safetensors"))
    settings = settings_for(model=str(weights))
    index(own_pile, folder, settings)
    archive = Archive.open(folder)
    assert runs.remember(archive, settings)
    weights.touch()
    assert runs.remember(archive, settings) is None
    weights.unlink()
    assert runs.remember(archive, settings) is None


def test_other_libraries_are_no_reason_to_remember(own_pile: Path, folder: Path, settings_for, monkeypatch) -> None:
    index(own_pile, folder, settings_for())
    monkeypatch.setattr(runs, "versions", lambda: {"python": "4"})
    assert runs.remember(Archive.open(folder), settings_for()) is None


def test_nothing_to_do_needs_no_torch() -> None:
    code = "import sys, pipeline.reindexing; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "open_clip", "ray", "torchvision"} & set(loaded)


@pytest.mark.parametrize(
    "model",
    [
        TINY,
        FrameMeanConfig(
            frames=3, image_size=8, embed_dim=4, arch="a", context_length=9, mean=(1.0, 2.0, 3.5), std=(1.0, 1.0, 2.0)
        ),
    ],
)
def test_a_space_is_the_same_after_it_was_written_down(model) -> None:
    space = Space(weights_hash="w", model=model, sampling=Sampling(frames=model.frames))
    assert runs._space(json.loads(json.dumps(asdict(space)))) == space
