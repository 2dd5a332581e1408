"""The walls in the real job: what hangs, crashes or eats memory costs itself, and is one row of the dead-letter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline import engine, plan
from pipeline.archive import Archive
from pipeline.deadletter import failures
from pipeline.engine import Stage
from pipeline.flows import index
from schemas.records import Letter
from tests.flow import disasters
from tests.footage import film

GOOD = {"good.mp4": ("left", "up"), "good too.mp4": ("down", "still", "growing")}
DISASTERS = {
    ("fingerprint", "hang"): "timeout",
    ("inspect", "hang"): "timeout",
    ("inspect", "segfault"): "crash",
    ("inspect", "glutton"): "memory",
    ("decode", "hang"): "timeout",
    ("decode", "segfault"): "crash",
    ("decode", "killed"): "killed",
    ("decode", "glutton"): "memory",
}
SAID = {
    "timeout": "over its deadline of 10 s, and stopped",
    "crash": "the worker crashed: Segmentation fault",
    "killed": "the worker was killed from outside",
    "memory": "needs more than 0.5 GiB of memory",
}


@pytest.fixture
def disastrous(tmp_path: Path) -> Path:
    """A folder of sound files, most of which do something to whoever opens them; no two have the same size."""
    folder = tmp_path / "videos"
    for name, motions in GOOD.items():
        film(folder / name, *motions)
    for number, (stage, deed) in enumerate(DISASTERS):
        film(folder / f"{stage}-{deed}.mp4", "right", colour_seed=100 + number)
    for number, file in enumerate(sorted(folder.iterdir())):
        with file.open("ab") as stream:
            stream.write(bytes(8 + 16 * number))  # a box that players pass over
    return folder


def place_of(letter: Letter) -> tuple[str, str]:
    """Which disaster a letter tells of."""
    stage, deed = Path(letter.uri).stem.split("-")
    return stage, deed


@pytest.mark.ray
def test_an_index_run_survives_hangs_crashes_and_gluttons_and_tells_of_each(
    disastrous: Path, settings_for, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disasters.strike(monkeypatch)
    folder, began = tmp_path / "archive", datetime.now(UTC)
    report = index(disastrous, folder, settings_for("ray"))
    ended = datetime.now(UTC)

    assert (report.planned, report.indexed, report.failed) == (len(GOOD) + len(DISASTERS), len(GOOD), len(DISASTERS))
    shown = Archive.open(folder).visible_clips(report.space, ["video_id"])
    assert len(shown) == report.clips == sum(map(len, GOOD.values()))

    letters = {place_of(letter): letter for letter in failures(folder)}
    assert {place: letter.error_kind for place, letter in letters.items()} == DISASTERS
    assert len(failures(folder)) == len(DISASTERS), "one row each"
    for (stage, _), letter in letters.items():
        assert (letter.stage, letter.attempts, letter.permanent, letter.state) == (stage, 1, False, "open")
        assert letter.error.startswith(SAID[letter.error_kind])
        assert began <= letter.first_seen == letter.last_seen <= ended
        assert letter.run_id == report.run_id
        assert {name.split()[0] for name in letter.decoder.split(", ")} >= {"libavcodec", "libavformat"}
        assert (letter.unit_id is not None, letter.start_s) == ((True, 0.0) if stage == "decode" else (False, None))


def test_every_stage_that_opens_files_has_its_walls(
    settings_for, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop does not enforce deadlines; that the stages of the job have theirs can be seen without Ray."""
    film(tmp_path / "videos" / "one.mp4", "left", "up")
    film(tmp_path / "videos" / "two.mp4", "left", "up").write_bytes((tmp_path / "videos" / "one.mp4").read_bytes())
    built: dict[str, tuple[bool, float | None, int | None]] = {}

    def seen(stages: list[Stage], records: Iterable[Any], scratch: Path) -> Iterator[Any]:
        records = list(records)
        for stage in stages:
            is_alone = stage.batch_size == 1 and not stage.resident
            built[stage.name] = (is_alone, stage.deadline_s and stage.deadline_s(records[0]), stage.memory_bytes)
        return local(stages, records, scratch)

    local = engine.ENGINES["local"]
    monkeypatch.setitem(engine.ENGINES, "local", seen)
    index(tmp_path / "videos", tmp_path / "archive", settings_for())
    size_bytes = (tmp_path / "videos" / "one.mp4").stat().st_size
    to_read_s = plan.DEADLINE_BASE_S + size_bytes / plan.READ_BYTES_PER_S
    packets_s = 40 * (plan.DEADLINE_PER_PACKET_S + plan.DEADLINE_PER_MEGAPIXEL_S * 96 * 64 / 1e6)
    assert built == {
        "fingerprint": (True, pytest.approx(to_read_s), None),
        "inspect": (True, pytest.approx(to_read_s), plan.MEMORY_BYTES),
        "keep": (False, None, None),
        "decode": (True, pytest.approx(plan.DEADLINE_BASE_S + packets_s), plan.MEMORY_BYTES),
        "embed": (False, None, None),
        "write": (False, None, None),
    }
