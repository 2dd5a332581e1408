"""Where the time of indexing goes: CPU time of each kind of work per hour of footage, as a table and a chart.

    python -m benchmarks.scaling && python -m benchmarks.where [VIDEO] [--models footage-tiny B/32] [--chart FILE.png]

Each kind is measured alone in this process, CPU time of all its threads, medians over rounds. Scaling is what the
scaler and thumbnails take inside the decoding loop; products are the matrix products of the model's linear layers alone
(`encode.py`). What the engine adds is a video's share of the CPU time of all processes, between the smallest and the
largest run of the last `scaling.py`, less what that video's work takes here: queues, pickles, commits, Ray itself.
Without VIDEO one is made, of 1280 x 720 pixels and as long as those of `scaling.py`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, its own folder would be there

from benchmarks import encode, harness, scaling, videos
from benchmarks.decoders import all_threads
from pipeline import decode, demux, plan, sources
from pipeline.embed import Embed, OnCpu, clips_per_pass
from pipeline.parts import write_part
from pipeline.settings import Sampling
from schemas.records import DecodedUnit, EmbeddedUnit, Unit
from xclip_core import XClip
from xclip_core.fast import fast_video

KINDS = ("read, index, plan", "decode", "scale", "embed: products", "embed: rest", "write", "engine")
MADE_SIZE = (1280, 720)
HOUR_S = 3600


@dataclass(frozen=True, kw_only=True)
class EmbedGiven(Embed):
    """The stage with a model that has no file."""

    model: XClip

    @cached_property
    def encode(self) -> OnCpu:
        """As `Embed.encode` without bytes, whose products and rest are not told apart here."""
        most = clips_per_pass(self.model.config, self.dtype)
        return OnCpu(fast_video(self.model, self.dtype), self.threads, most)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU time of some work, on all threads, and its result."""
    began = time.process_time()
    done = work()
    return time.process_time() - began, done


def planned(file: Path) -> tuple[Unit, ...]:
    """A file read, hashed, indexed and planned, as two stages and the driver do it."""
    source = sources.fingerprint(next(iter(sources.take_inventory(file))))
    return plan.plan_video(demux.inspect(source, Sampling(tolerance_s=None)), None, {}, 0, "space").units


@contextmanager
def scaler_watched() -> Iterator[list[float]]:
    """CPU time of every picture that is scaled meanwhile, as a list that grows."""
    spent: list[float] = []

    class Watched(decode.Resizer):  # no place outside the decoding loop sees the scaler alone
        def upright(self, *given: Any) -> Any:
            took_s, picture = timed(lambda: super(Watched, self).upright(*given))
            spent.append(took_s)
            return picture

    with patch.object(decode, "Resizer", Watched):
        yield spent


def parts(file: Path, stage: EmbedGiven, products: Callable[[Any], object]) -> dict[str, float]:
    """CPU time of each kind of work on one file, once; all but the engine's."""
    read_s, units = timed(lambda: planned(file))
    with scaler_watched() as scaled:
        decoding_s, decoded = timed(lambda: [decode.decode(unit, stage.model.config.image_size) for unit in units])
    embed_s, embedded = timed(lambda: stage(decoded))
    products_s, _ = timed(lambda: products(frames(decoded)))
    with tempfile.TemporaryDirectory() as folder:
        write_s, _ = timed(lambda: written(embedded, folder))
    return {
        "read, index, plan": read_s,
        "decode": decoding_s - sum(scaled),
        "scale": sum(scaled),
        "embed: products": products_s,
        "embed: rest": embed_s - products_s,
        "write": write_s,
    }


def frames(decoded: Sequence[DecodedUnit]) -> Any:
    """All clips of some units, N x T x S x S x 3."""
    import torch

    return torch.cat([torch.from_numpy(unit.frames_NTHWC) for unit in decoded])


def written(embedded: list[EmbeddedUnit], folder: str) -> None:
    """Writes clips as a part."""
    write_part(embedded, folder)


def medians(file: Path, stage: EmbedGiven, products: Callable[[Any], object], rounds: int) -> dict[str, float]:
    """`parts`, over rounds after one that does not count."""
    taken = [parts(file, stage, products) for _ in range(rounds + 1)][1:]
    return {kind: statistics.median(row[kind] for row in taken) for kind in taken[0]}


def stages(name: str) -> tuple[EmbedGiven, Callable[[Any], object]]:
    """The embedding stage of a model on all cores, and its products alone."""
    given, threads = encode.model_named(name), all_threads()
    stage = EmbedGiven(model_source=name, context="int8", threads=threads, model=given)
    return stage, encode.on_threads(encode.Products(given.config, stage.dtype), threads, given.config, stage.dtype)


def last_scaling() -> dict[str, Any]:
    """What the last run of `scaling.py` found. Ends the script when there was none."""
    file = harness.RESULTS / "scaling.jsonl"
    if not file.exists():
        sys.exit(f"{file} is not there: what the engine takes is seen in it; run python -m benchmarks.scaling first")
    return json.loads(file.read_text().splitlines()[-1])


def cpu_per_video_s(runs: Sequence[dict[str, Any]]) -> float:
    """CPU time of one more video: between the runs of fewest and of most videos on all cores, so that starts cancel.

    Raises ValueError when there are no two such runs.
    """
    cores = max(run["cores"] for run in runs)
    many = sorted(
        (run["videos"], run["cpu_s"])
        for run in runs
        if run["cores"] == cores and not run["name"].startswith("1 video of ")
    )
    if len(many) < 2 or many[0][0] == many[-1][0]:
        raise ValueError(f"{len(many)} runs over several videos; expected two sizes: run scaling with --times 1 8")
    return (many[-1][1] - many[0][1]) / (many[-1][0] - many[0][0])


def chart(rows: dict[str, dict[str, float]], file: Path, said: str) -> None:
    """A panel per model of horizontal bars, CPU seconds per hour of footage."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(rows), figsize=(5 * len(rows), 3), sharey=True, squeeze=False)
    for panel, (name, spent) in zip(panels[0], rows.items(), strict=True):
        values = [spent[kind] for kind in KINDS]
        bars = panel.barh(KINDS, values, color="#4477aa")
        panel.bar_label(bars, [f"{value:.1f}" for value in values], padding=3, fontsize=8)
        panel.invert_yaxis() if panel is panels[0][0] else None
        panel.set_xlim(0, 1.18 * max(values))
        panel.set_title(f"{name}: {sum(values):.0f} s of CPU per hour of footage", fontsize=10)
        panel.set_xlabel("CPU seconds")
        panel.spines[["top", "right"]].set_visible(False)
    figure.text(0.99, 0.005, said, ha="right", fontsize=6, color="#666666")
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(file, dpi=110)


def main(given: argparse.Namespace) -> None:
    """Prints the table, draws the chart, appends both's figures to build/bench/where.jsonl."""
    found = last_scaling()
    seconds = found["seconds"]
    with tempfile.TemporaryDirectory() as scratch:
        small = videos.filmed(Path(scratch, "s.mp4"), seconds=seconds, size=scaling.SIZE, options=scaling.OPTIONS)
        file = given.video or videos.filmed(
            Path(scratch, "l.mp4"), seconds=seconds, size=MADE_SIZE, options=videos.X264_DEFAULTS
        )
        own = medians(small, *stages(encode.EMBEDDED), given.rounds)
        length_s = max(window.end_s for unit in planned(file) for window in unit.windows)
        taken = {name: medians(file, *stages(name), given.rounds) for name in given.models}
    engine_s = cpu_per_video_s(found["runs"]) - sum(own.values())
    hour = {name: {kind: s * HOUR_S / length_s for kind, s in row.items()} for name, row in taken.items()}
    rows = {name: {**row, "engine": engine_s * HOUR_S / seconds} for name, row in hour.items()}
    shown = [[kind, *(f"{row[kind]:.1f}" for row in rows.values())] for kind in KINDS]
    print(harness.table(["CPU seconds per hour of footage", *rows], shown))
    harness.record("where", {"video": str(given.video or "made"), "rows": rows, "engine_per_video_s": engine_s})
    if given.chart:
        chart(
            rows,
            given.chart,
            f"footage of {given.video.name if given.video else 'made 1280 x 720'}, {all_threads()} cores",
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, nargs="?")
    parser.add_argument("--models", nargs="+", default=[encode.EMBEDDED, "B/32"], choices=list(encode.CLIPS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chart", type=Path)
    main(parser.parse_args())
