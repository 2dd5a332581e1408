"""How much memory tagging and exporting tags take, by the number of clips.

    python -m benchmarks.tag_memory [--clips 20000 80000 320000] [--only tag kinetics ...]

Real archives of clips with random vectors and small contexts, and a tiny model of random weights: what is measured is
not the model but what is held of clips, rows and files. Each step runs in a process of its own; its peak resident
memory, with Python, torch and Arrow in it, is what the table has. An archive of no clips says what those take.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, its own folder would be there

from benchmarks import harness, tagging
from benchmarks.encode import random_model
from pipeline import tag_export
from pipeline.archive import Archive
from pipeline.label_sets import Label, LabelSet
from pipeline.serving import OpenSpace
from pipeline.settings import IndexSettings
from pipeline.tag_export import FORMATS, TagExport
from pipeline.tagging import TagSettings, tag
from xclip_core import XClipConfig

CONFIG = XClipConfig(
    frames=2, image_size=24, patch_size=8, embed_dim=128, vision_width=64, vision_layers=1, text_width=64,
    text_layers=1, vocab_size=49408, context_length=77, mit_layers=1, prompt_layers=1,
)  # fmt: skip
LABELS = LabelSet(tuple(Label(name, (name,)) for name in ("run", "jump", "sit", "wave")))
NAMES = {"tags": "a.parquet", "videos": "a.jsonl", "activitynet": "a.json", "kinetics": "a.csv", "coco": "a.json"}


def step(folder: Path, name: str) -> dict[str, float]:
    """One step in this process, which has done nothing else."""
    began = time.perf_counter()
    if name == "tag":
        tag(OpenSpace(Archive.open(folder), tagging.SPACE, random_model(CONFIG)), LABELS, TagSettings())
    else:
        with tempfile.TemporaryDirectory(prefix="footage-") as out:
            place = Path(out, NAMES.get(name, "folder"))
            tag_export.export_tags(folder, place, TagExport(kind=name))  # type: ignore[arg-type]
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return {"peak_mb": peak_mb, "took_s": time.perf_counter() - began}


def in_process(folder: Path, name: str) -> dict[str, float]:
    """`step`, alone."""
    command = [sys.executable, __file__, "--step", str(folder), name]
    found: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def fill(folder: Path, clips: int) -> None:
    """An archive of clips, and the run that says which space serves."""
    archive = tagging.fill(folder, CONFIG, clips, clips_per_video=500)
    row = {"run_id": "run", "state": "finished", "space": tagging.SPACE, "at": np.datetime64("now").item()}
    settings = {"index": {"model": IndexSettings().model}, "space": {"model": {"embed_dim": CONFIG.embed_dim}}}
    archive.log_run(row | {"settings": json.dumps(settings), "versions": "{}", "report": None})


def main() -> None:
    """Parses and runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[20_000, 80_000, 320_000])
    steps = ["tag", *FORMATS]  # in this order: there is nothing to export before
    parser.add_argument("--only", nargs="+", default=steps, choices=steps)
    parser.add_argument("--step", nargs=2, metavar=("ARCHIVE", "NAME"), help="what this script runs itself with")
    given = parser.parse_args()
    if given.step:
        print(json.dumps(step(Path(given.step[0]), given.step[1])))
        return
    found: dict[str, dict[int, dict[str, float]]] = {name: {} for name in given.only}
    for clips in (0, *given.clips):
        with tempfile.TemporaryDirectory(prefix="footage-") as scratch:
            fill(Path(scratch, "archive"), clips)
            for name, by_clips in found.items():
                if clips or name == "tag":  # tags of nothing are none to export
                    by_clips[clips] = in_process(Path(scratch, "archive"), name)
    rows = [[name, *(_cell(by_clips.get(clips)) for clips in (0, *given.clips))] for name, by_clips in found.items()]
    print(harness.table(["peak MB (s)", *(f"{clips:,} clips" for clips in (0, *given.clips))], rows))
    print(f"\nwritten to {harness.record('tag_memory', {'steps': found})}")


def _cell(result: dict[str, float] | None) -> str:
    """A figure of the table."""
    return "" if result is None else f"{result['peak_mb']:.0f} ({result['took_s']:.1f})"


if __name__ == "__main__":
    main()
