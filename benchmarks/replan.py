"""What planning another space over the same files costs, when the packets of the first are kept and when all is opened.

    python benchmarks/replan.py VIDEOS             # a folder of real videos
    python benchmarks/replan.py --clips 300        # so many videos of a minute, made by script

Plans one space as the first run of an archive does, with the lease and keeping packets, and writes the rows of `videos`
that such a run would (no clip is decoded: planning is what is measured). Then plans another space, with windows half as
long, over the same files: in that archive, and in one that knows nothing, which is what a second space cost before
packets were kept. Each in a fresh process, in turns; medians. Files are in the page cache.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pipeline import lease, revisions, sources
from pipeline.archive import Archive
from pipeline.plan import VideoPlan
from pipeline.settings import IndexSettings, Sampling, Space
from pipeline.survey import Job, Survey, survey, take_stock
from schemas.records import UnitOutcome
from xclip_core.config import XClipConfig

HERE = Path(__file__).parents[1]
FIRST, OTHER = 10.0, 5.0  # seconds of a window
MINUTE = 1500  # frames
MODEL = XClipConfig(
    frames=8, image_size=224, patch_size=32, embed_dim=512, vision_width=768, vision_layers=12, text_width=512,
    text_layers=12, vocab_size=49408, context_length=77, mit_layers=1, prompt_layers=2,
)  # fmt: skip


def planned(videos: Path, archive: Archive, window_s: float) -> Survey:
    """What a run into a space of such windows has to do."""
    sampling = Sampling(window_s=window_s, stride_s=window_s, tolerance_s=None)
    space = Space(weights_hash="benchmark", model=MODEL, sampling=sampling)
    job = Job(archive, IndexSettings(engine="local"), space, "run", {}, lambda _: None)
    inventory = sources.take_inventory(videos)
    stock = take_stock(archive, space.id, inventory, inventory.folders, job.policy)
    with tempfile.TemporaryDirectory() as scratch:
        return survey(job, stock, Path(scratch))


def fill(videos: Path, folder: Path) -> None:
    """An archive that knows the videos and their packets, as a run leaves it that decoded them all."""
    Archive.create(folder)
    with lease.held(folder, "run") as held:
        found = planned(videos, Archive(folder, held.term), FIRST)
        rows = [revisions.indexed(found.job, item, outcomes(item), []) for item in found.plans]
        found.job.archive.commit_videos([*rows, *revisions.settled(found.job, found)])


def outcomes(item: VideoPlan) -> list[UnitOutcome]:
    """Every unit whole."""
    return [
        UnitOutcome(unit.unit_id, unit.video_id, len(unit.windows), sum(len(w.frame_times_s) for w in unit.windows))
        for unit in item.units
    ]


def measure(what: str, videos: Path, folder: Path) -> dict[str, float]:
    """One plan in this process, which has done nothing else."""
    began, worked = time.perf_counter(), time.process_time()
    if what == "first":
        fill(videos, folder)
        found = None
    else:
        found = planned(videos, Archive(folder), OTHER)
    units = sum(len(item.units) for item in found.plans) if found else 0
    clips = sum(len(item.video.windows) for item in found.plans) if found else 0
    return {
        "took_s": time.perf_counter() - began,
        "cpu_s": time.process_time() - worked,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
        "videos": len(found.plans) if found else 0,
        "units": units,
        "clips": clips,
    }


def in_process(what: str, videos: Path, folder: Path) -> dict[str, float]:
    """`measure`, alone."""
    command = [sys.executable, __file__, "measure", what, str(videos), str(folder)]
    run = subprocess.run(command, capture_output=True, check=True, cwd=HERE)
    found: dict[str, float] = json.loads(run.stdout)
    return found


def paint(number: int, size: tuple[int, int]) -> np.ndarray:
    """A pattern that moves, with noise: about as many bytes as real footage."""
    rows, columns = np.mgrid[: size[1], : size[0]]
    wave = 127 + 80 * np.sin((columns + 3 * number) / 40) * np.cos((rows - number) / 30)
    noise = np.random.default_rng(number).normal(0, 6, wave.shape)
    return np.repeat(np.clip(wave + noise, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def make_clips(folder: Path, count: int) -> None:
    """So many videos of a minute, told apart by a `free` box at the end, which players skip."""
    sys.path.insert(0, str(HERE))  # of a script only its own folder is on it
    from tests.media import make_video

    how = {"size": (640, 360), "b_frames": 3, "gop": 250, "options": {"crf": "30", "preset": "fast"}}
    content = make_video(folder.parent / "minute.mp4", frames=MINUTE, paint=paint, **how).read_bytes()
    folder.mkdir()
    for number in range(count):
        Path(folder, f"{number:05}.mp4").write_bytes(content + struct.pack(">I4sQ", 16, b"free", number))


def report(videos: Path, rounds: int) -> None:
    """Prints what there is, and a line for each way."""
    with tempfile.TemporaryDirectory() as scratch:
        kept, empty = Path(scratch, "archive"), Path(scratch, "none")
        in_process("first", videos, kept)
        archive = Archive(kept)
        rows = archive.table("packets").to_pyarrow_table(columns=["packet_count", "packets"])
        packets, size_bytes = sum(rows["packet_count"].to_pylist()), archive.size_bytes()["packets"]
        blob_bytes = sum(map(len, rows["packets"].to_pylist()))
        file_bytes = sum(file.stat().st_size for file in videos.rglob("*") if file.is_file())
        print(
            f"{rows.num_rows} videos of {file_bytes / 1e6:.0f} MB in all files, {packets} packets: "
            f"{blob_bytes / packets:.2f} bytes a packet, {size_bytes / packets:.2f} with the table around them"
        )
        runs: dict[str, list[dict[str, float]]] = {"opened": [], "kept": []}
        for _ in range(rounds):
            for name, folder in (("opened", empty), ("kept", kept)):
                runs[name].append(in_process("other", videos, folder))
        for name, found in runs.items():
            took_s, cpu_s, peak_mb = (
                statistics.median(run[key] for run in found) for key in ("took_s", "cpu_s", "peak_mb")
            )
            last = found[-1]
            print(
                f"{name}: {took_s:.2f} s ({cpu_s:.2f} s of CPU), peak {peak_mb:.0f} MB; {last['videos']} videos, "
                f"{last['units']} units, {last['clips']} clips"
            )


def main() -> None:
    """Parses and runs."""
    if sys.argv[1:2] == ["measure"]:
        what, videos, folder = sys.argv[2:]
        print(json.dumps(measure(what, Path(videos), Path(folder))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="?", type=Path)
    parser.add_argument("--clips", type=int, default=300, help="how many to make where no VIDEOS are given")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if given.videos:
        report(given.videos, given.rounds)
        return
    with tempfile.TemporaryDirectory() as scratch:
        make_clips(Path(scratch, "videos"), given.clips)
        report(Path(scratch, "videos"), given.rounds)


if __name__ == "__main__":
    main()
