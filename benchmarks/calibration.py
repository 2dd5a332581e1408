"""What a calibration is worth on clips whose labels are known, by how many it is fitted on.

    python -m benchmarks.calibration [--videos 120] [--seeds 5]

Draws videos of four scenes of two seconds, an object that moves over a textured ground, and indexes them with the
embedded model. The label set has the motions but three, so that clips with those are none of the set. Then calibrates
on the clips of ever more videos, and measures each time on the same half of them, which nothing was fitted on. A line
is the median over seeds, which decide the halves.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, its own folder would be there

from benchmarks import harness
from pipeline import calibration, tagging
from pipeline.calibration import ModeReport
from pipeline.calibration_fit import CalibrateSettings, LabelledScores, fit_multi, fit_single
from pipeline.decode import write_video
from pipeline.flows import index
from pipeline.label_sets import Label, LabelSet
from pipeline.labelled_clips import LabelledSpan
from pipeline.serving import open_space
from pipeline.settings import IndexSettings
from pipeline.showcase import LABELS
from pipeline.tagging import TagSettings
from xclip_core.drawing import frame_times, render
from xclip_core.scenes import Scene

SCENES, SCENE_S, RATE_HZ = 4, 2, 12
HEIGHT, WIDTH = 240, 320
LEFT_OUT = ("up-left", "shrinking", "still")  # of the label set: what is drawn and none of it


def draw(folder: Path, videos: int) -> dict[str, list[LabelledSpan]]:
    """Writes videos; returns what is known of each."""
    rng = np.random.default_rng(0)
    known: dict[str, list[LabelledSpan]] = {}
    for number in range(videos):
        motions = rng.choice(list(LABELS), SCENES)
        scenes = [Scene(motion=motion, background="textured", seed=1000 * number + place)
                  for place, motion in enumerate(motions)]  # fmt: skip
        times = frame_times(SCENE_S * RATE_HZ)
        frames = (frame for scene in scenes for frame in render(scene, times=times, height=HEIGHT, width=WIDTH))
        write_video(file := folder / f"{number:04}.mp4", frames, shape=(HEIGHT, WIDTH), rate_hz=RATE_HZ)
        known[str(file)] = [
            LabelledSpan(SCENE_S * place, SCENE_S * (place + 1), None if motion in LEFT_OUT else str(motion))
            for place, motion in enumerate(motions)
        ]
    return known


def scores(folder: Path, videos: int) -> tuple[LabelledScores, LabelSet]:
    """The scores of all clips by the embedded model, and the label set."""
    (pile := folder / "videos").mkdir()
    known = draw(pile, videos)
    index(pile, folder / "archive", IndexSettings(engine="local", window_s=SCENE_S))
    opened = open_space(folder / "archive")
    labels = LabelSet(tuple(Label(name, (text,)) for name, text in LABELS.items() if name not in LEFT_OUT))
    asked, _ = tagging.prepared(labels, TagSettings(background=True), opened.space)
    return calibration.scores_of(opened, asked, known, "float32"), asked


def measured(found: LabelledScores, labels: LabelSet, videos: int, seed: int) -> dict[str, ModeReport]:
    """Fitted on the clips of so many videos of one half, measured on the other."""
    order = np.random.default_rng(seed).permutation(np.unique(found.video_B))
    fit, held = (
        found.at(np.isin(found.video_B, part)) for part in (order[len(order) // 2 :][:videos], order[: len(order) // 2])
    )
    settings = CalibrateSettings()
    multi, single = fit_multi(fit, labels, settings), fit_single(fit, labels, settings)
    return {"multi": calibration.multi_report(held, multi), "single": calibration.single_report(held, labels, single)}


def lines(found: LabelledScores, labels: LabelSet, sizes: list[int], seeds: int) -> Iterator[list[str]]:
    """A line for each mode and number of videos."""
    runs = {size: [measured(found, labels, size, seed) for seed in range(seeds)] for size in sizes}
    for mode in ("multi", "single"):
        for when, size in (("uncalibrated", sizes[0]), *(("calibrated", size) for size in sizes)):
            reports = [run[mode].before if when == "uncalibrated" else run[mode].after for run in runs[size]]
            figures = [statistics.median(asdict(each)[name] for each in reports) for name in asdict(reports[0])]
            clips = "" if when == "uncalibrated" else f" on {size * SCENES} clips"
            yield [f"{mode}, {when}{clips}", *(f"{figure:.4f}" for figure in figures)]


def main() -> None:
    """Parses and runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="footage-") as folder:
        found, labels = scores(Path(folder), given.videos)
    sizes = [size for size in (4, 15, 60) if size <= given.videos // 2]
    rows = list(lines(found, labels, sizes, given.seeds))
    print(f"{len(found)} clips of {given.videos} videos, {len(labels.labels)} labels, half of the videos held out\n")
    print(harness.table(["probabilities", "calibration error", "Brier", "log loss"], rows))
    print(f"\nwritten to {harness.record('calibration', {'videos': given.videos, 'rows': rows})}")


if __name__ == "__main__":
    main()
