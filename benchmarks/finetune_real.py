"""Fine-tuning on real clips: makes a small labelled set, trains twice, once killed with -9, and compares.

    python benchmarks/finetune_real.py FOOTAGE OUT [--epochs 8] [--lr 1e-4]

FOOTAGE holds MANIFEST.json with a label a file. Labels with two or more clips are used. Of every clip three quarters
of its time are training samples, each in three square crops (left, middle, right); the quarter between them is
`times`: known clips at times never trained on, by which the best epoch is chosen. The last clip of every label is kept
out entirely: `clips`, whose figure says something about new footage. Ends with 1 where the run that was
killed left other files than the one that was not.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline import decode, demux

SHORT_SIDE = 128
RATE_HZ = 12
QUARTERS = {0: "train", 1: "train", 2: "times", 3: "train"}
FILES = ("metrics.jsonl", "model.safetensors", "last.safetensors")


def clips_by_label(footage: Path) -> dict[str, list[Path]]:
    """Labelled clips of labels that have two or more."""
    found: dict[str, list[Path]] = defaultdict(list)
    for entry in json.loads((footage / "MANIFEST.json").read_text())["files"]:
        if entry["group"] == "A":
            found[entry["label"].replace("/", "or")].append(footage / "A" / entry["name"])
    return {label: files for label, files in sorted(found.items()) if len(files) > 1}


def samples(file: Path) -> Iterator[tuple[int, int, np.ndarray]]:
    """Quarter, crop number and frames T x H x W x 3 of every sample of a clip."""
    times_s = demux.frame_times(str(file))
    edges_s = np.linspace(times_s[0], times_s[-1], 5)
    for quarter in range(4):
        wanted_s = np.arange(edges_s[quarter], edges_s[quarter + 1], 1 / RATE_HZ)
        frames = decode.short_side_frames(str(file), wanted_s.tolist(), SHORT_SIDE)
        _, height, width, _ = frames.shape
        for crop in range(3):
            top, left = (height - SHORT_SIDE) * crop // 2, (width - SHORT_SIDE) * crop // 2
            yield quarter, crop, frames[:, top : top + SHORT_SIDE, left : left + SHORT_SIDE]


def make_set(footage: Path, out: Path) -> None:
    """Writes OUT/train, OUT/times and OUT/clips, a folder per label in each."""
    for label, files in clips_by_label(footage).items():
        for file in files:
            for quarter, crop, frames in samples(file):
                part = "clips" if file == files[-1] else QUARTERS[quarter]
                target = out / part / label / f"{file.stem}_{quarter}{crop}.mp4"
                target.parent.mkdir(parents=True, exist_ok=True)
                decode.write_video(
                    target, iter(np.ascontiguousarray(frames)), shape=(SHORT_SIDE, SHORT_SIDE), rate_hz=RATE_HZ
                )


def command(out: Path, run: str, options: list[str], val: str = "times") -> list[str]:
    """A fine-tuning command on the set."""
    given = [str(out / "train"), str(out / run), "--val", str(out / val), *options]
    return [sys.executable, "-m", "jobs", "finetune", *given, "--json"]


def killed(arguments: list[str], metrics: Path, lines: int) -> int:
    """Runs a command and kills it with -9 once it has written so many lines; its exit status."""
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if metrics.exists() and metrics.read_bytes().count(b"\n") >= lines:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
    return process.returncode


def compare(whole: Path, broken: Path) -> int:
    """Says of every file of two runs whether it is the same; the exit status that this is worth."""
    status = 0
    for name in FILES:
        same = (whole / name).read_bytes() == (broken / name).read_bytes()
        print(f"{name}: {'identical' if same else 'DIFFERENT'}")
        status |= not same
    return status


def main() -> int:
    """Makes the set if it is not there, trains, kills, resumes, compares, and prints what came out; the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("footage", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", default="8")
    parser.add_argument("--batch", default="16")
    parser.add_argument("--lr", default="1e-4")
    asked = parser.parse_args()
    out = asked.out
    if not (out / "train").exists():
        make_set(asked.footage, out)
    options = ["--epochs", asked.epochs, "--batch", asked.batch, "--lr", asked.lr]
    whole = json.loads(subprocess.run(command(out, "whole", options), check=True, stdout=subprocess.PIPE).stdout)
    print("unbroken:", json.dumps(whole))
    lines = random.Random(time.time()).randint(1, whole["steps"] - 1)
    status = killed(command(out, "broken", options), out / "broken" / "metrics.jsonl", lines)
    resumed = json.loads(subprocess.run(command(out, "broken", options), check=True, stdout=subprocess.PIPE).stdout)
    print(f"killed after {lines} lines (status {status}), went on from step {resumed['resumed_from']}")
    return compare(out / "whole", out / "broken")


if __name__ == "__main__":
    sys.exit(main())
