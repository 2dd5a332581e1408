"""Indexing on a machine with a GPU: videos decoded on its CPUs, by NVDEC, and where `--decoder auto` has them decoded.

    python -m benchmarks.ingest_cuda FILE ... [--copies 16] [--decoders cpu,cuda,auto] [--model build/bench/...]

Each decoder indexes so many copies of the files and three times as many, in fresh processes on Ray; figures are of the
difference, so that starting is not in them. Decoding's and the encoder's busy seconds are those of all their workers
together: those of the one GPU over the seconds are how busy the encoder was.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, its own folder would be there

from benchmarks import harness, ingest

FOLD = 3
HEAD = ["decoder", "videos", "footage s/s", "clips/s", "decode busy s", "encoder busy", "first commit (s)", "where"]


def index_here(decoder: str, model: str, videos: str, archive: str) -> None:
    """Indexes a folder and prints its report, in its own process."""
    import time

    from pipeline import flows
    from pipeline.embed import device_named
    from pipeline.settings import IndexSettings
    from pipeline.survey import Progress

    began, moments_s = time.perf_counter(), []

    def watch(progress: Progress) -> None:
        if progress.phase == "index" or not moments_s:
            moments_s.append(time.perf_counter() - began)

    settings = IndexSettings(model=model, decoder=decoder, device=device_named("auto"))  # type: ignore[arg-type]
    report = flows.index(videos, archive, settings, watch=watch)
    names = ("clips", "decode_s", "embed_s", "footage_s", "encoders", "pools", "decoders", "fallbacks")
    said = {name: getattr(report, name) for name in names}
    print(json.dumps(said | {"moments_s": moments_s, "failed": report.failed}))


def indexed(decoder: str, model: str, videos: Path) -> dict[str, Any]:
    """One run in a fresh process: its report, seconds from the first file read to the last commit, and to the first."""
    with tempfile.TemporaryDirectory() as archive:
        said = ingest.child("benchmarks.ingest_cuda", "--index-here", decoder, model, str(videos), archive + "/a")
    first, committed, last = (said["moments_s"][at] for at in (0, 1, -1))
    return {**said, "seconds": last - first, "start_s": committed}


def measure(decoder: str, model: str, files: list[Path], copies: int, folder: Path) -> dict[str, Any]:
    """The difference of a run over so many copies and one over FOLD times as many."""
    few, many = (ingest.copies(files, n, folder / f"{decoder}-{n}") for n in (copies, FOLD * copies))
    small, large = indexed(decoder, model, few), indexed(decoder, model, many)
    names = ("seconds", "clips", "footage_s", "decode_s", "embed_s")
    return {
        "decoder": decoder,
        "videos": [copies * len(files), FOLD * copies * len(files)],
        **{name: large[name] - small[name] for name in names},
        **{name: large[name] for name in ("encoders", "pools", "decoders", "fallbacks", "failed")},
        "start_s": small["start_s"],
    }


def cells(row: dict[str, Any]) -> list[str]:
    """The table's."""
    seconds = row["seconds"]
    return [
        row["decoder"],
        " and ".join(map(str, row["videos"])),
        f"{row['footage_s'] / seconds:.0f}",
        f"{row['clips'] / seconds:.1f}",
        f"{row['decode_s']:.1f} of {seconds:.1f}",
        f"{100 * row['embed_s'] / seconds:.0f} %",
        f"{row['start_s']:.1f}",
        "; ".join((*row["decoders"], *row["fallbacks"])),
    ]


def main(given: argparse.Namespace) -> None:
    """Prints the table and appends it to build/bench/ingest_cuda.jsonl."""
    model = given.model or str(ingest.checkpoint())
    rows = []
    for decoder in given.decoders.split(","):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(decoder, model, given.files, given.copies, Path(folder)))
        print(json.dumps(rows[-1]), flush=True)
    print(f"{os.cpu_count()} CPUs\n{harness.table(HEAD, [cells(row) for row in rows])}")
    harness.record("ingest_cuda", {"files": [file.name for file in given.files], "rows": rows})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--index-here"]:
        index_here(*sys.argv[2:])
        sys.exit()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--copies", type=int, default=16)
    parser.add_argument("--decoders", default="cpu,cuda,auto")
    parser.add_argument("--model", help="what `footage index --model` takes; random weights of B/32 unless given")
    main(parser.parse_args())
