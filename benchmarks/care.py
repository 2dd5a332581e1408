"""Memory and time of the care of an archive over many clips: `verify` and `compact` must not grow with them.

    python benchmarks/care.py 30000 300000     # videos, of three clips each

Writes the tables with pyarrow and Delta, in forty commits as indexing would: vectors of 64 numbers, no context, no
thumbnail, a tag for each clip; every tenth video has an older revision that nobody sees. There is no FAISS index, which
is held in memory whole by whoever opens it, 4 bytes a number. Each command runs in a fresh process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from benchmarks.noop import COMMITS, SPACE, _peak_mb, made_up, row
from pipeline import parts, plan
from pipeline.archive import Archive
from schemas import tables
from schemas.records import Part, VideoRow

CLIPS, WIDTH = 3, 64
HIDDEN_EVERY = 10


def clips_of(video: VideoRow, revision: int, draws: np.random.Generator) -> Iterator[dict]:
    """The rows of one revision."""
    for number in range(CLIPS):
        vector_E = draws.standard_normal(WIDTH).astype(np.float32)
        yield {
            "clip_id": plan._digest(video.video_id, revision, number),  # noqa: SLF001  # made as real ones are
            "unit_id": video.video_id,
            "video_id": video.video_id,
            "revision": revision,
            "start_s": number * 10.0,
            "end_s": number * 10.0 + 10,
            "frame_times_s": [number * 10.0 + k for k in range(8)],
            "intact_samples": 8,
            "embedding": vector_E / np.linalg.norm(vector_E),
        }


def add(archive: Archive, videos: list[VideoRow], draws: np.random.Generator) -> None:
    """Commits videos with their clips and tags."""
    path = f"space={SPACE}/part-{videos[0].video_id}.parquet"
    file = archive.folder / "clips" / path
    file.parent.mkdir(exist_ok=True)
    rows = [clip for video in videos for clip in clips_of(video, 2, draws)]
    rows += [clip for video in videos[::HIDDEN_EVERY] for clip in clips_of(video, 1, draws)]
    schema = parts.file_schema("clips")
    count = parts.write_batches(file, schema, pa.Table.from_pylist(rows, schema).to_batches())
    archive.commit_parts([Part(path, file.stat().st_size, count, SPACE, ())])
    tags = [{"clip_id": clip["clip_id"], "space": SPACE, "label_set": "s", "label": "l", "rank": 1} for clip in rows]
    for name, found in (("tags", tags), ("videos", map(asdict, videos))):
        table = pa.Table.from_pylist(list(found), schema=tables.TABLES[name])
        write_deltalake(str(archive.folder / name), table, mode="append")


def make_archive(folder: Path, count: int) -> None:
    """An archive of so many videos."""
    archive, draws = Archive.create(folder), np.random.default_rng(0)
    videos = [row(file, number) for number, file in enumerate(made_up(Path("/videos"), count))]
    size = -(-count // COMMITS)
    for start in range(0, count, size):
        chosen = [replace(video, revision=2, clip_count=CLIPS) for video in videos[start : start + size]]
        add(archive, chosen, draws)


def measure(command: str, folder: Path) -> dict[str, float]:
    """One command in this process, which has done nothing else."""
    from pipeline.compact import CompactSettings, compact
    from pipeline.verify import verify

    before_mb = _peak_mb()
    began, worked = time.perf_counter(), time.process_time()
    if command == "verify":
        assert not verify(folder).problems, "the archive is sound"
    else:
        compact(folder, CompactSettings())
    took_s, cpu_s = time.perf_counter() - began, time.process_time() - worked
    return {"took_s": took_s, "cpu_s": cpu_s, "imports_mb": before_mb, "peak_mb": _peak_mb()}


def main() -> None:
    """Parses and runs."""
    if sys.argv[1] == "measure":
        print(json.dumps(measure(sys.argv[2], Path(sys.argv[3]))))
        return
    for count in map(int, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as scratch:
            make_archive(Path(scratch, "archive"), count)
            for command in ("verify", "compact"):
                run = [sys.executable, __file__, "measure", command, f"{scratch}/archive"]
                found = json.loads(subprocess.run(run, capture_output=True, check=True).stdout)
                print(
                    f"{command} {count:,} videos: {found['took_s']:.1f} s ({found['cpu_s']:.1f} s of CPU), "
                    f"peak {found['peak_mb']:.0f} MB of which {found['imports_mb']:.0f} MB imports",
                    flush=True,
                )


if __name__ == "__main__":
    main()
