"""How fast clips are tagged, with many labels, against the products and the bytes that it takes at least.

    python -m benchmarks.tagging [--clips 512] [--labels 400] [--rounds 3] [--device cpu]
    python -m benchmarks.tagging --agree ARCHIVE LABELS [LABELS ...]

The first makes a real archive of clips with random vectors and contexts of B/32's shapes, and a B/32 of random weights,
whose speed is that of any. In turns it times

    footage         `pipeline.tagging.tag` as `footage tag` calls it, in either dtype, from the archive to the archive
    plain score     `XClip.score` of the same clips and texts in memory: the model as it is to be read
    products alone  the matrix products of the prompt generator's layers in the same shapes, passes and dtype
    bytes alone     the clips read out of the archive and unpacked, nothing made of them

A floor is the products and the bytes, one after the other. `footage` is the difference between an archive of all clips
and one of a quarter of them, so that what is paid once (encoding the texts, opening tables) is not in it. A million is
an extrapolation, as every clip costs the same. A round in which a way beats its floor is noise, and said to be.

The second tags an archive in float32 and in bfloat16 and tells how many clips get another best label, or other labels
at all, and how far scores move.
"""

# B clips, Q texts, N patches, E joint dimension, P pairs of a pass

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, its own folder would be there

from benchmarks import harness
from benchmarks.encode import random_model
from pipeline import keys, tag_rows, tagging
from pipeline.archive import Archive
from pipeline.contexts import PACKERS
from pipeline.keys import Keys
from pipeline.label_files import read_labels
from pipeline.label_sets import Label, LabelSet
from pipeline.parts import write_part
from pipeline.search import stored_tensors
from pipeline.serving import OpenSpace, open_space
from pipeline.tagging import TagSettings
from schemas.records import EmbeddedUnit, Unit, VideoRow, Window
from xclip_core import XClip, XClipConfig, encode_text_raw
from xclip_core.blocks import attend
from xclip_core.fast_score import PAIRS_PER_PASS
from xclip_core.released import ARCHITECTURES

SPACE = "0123456789ab"
CLIPS_PER_VIDEO = 32
MILLION = 1_000_000
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


# --- an archive


def fill(folder: Path, config: XClipConfig, clips: int, clips_per_video: int = CLIPS_PER_VIDEO) -> Archive:
    """An archive of clips with random vectors, and contexts as bytes of int8."""
    archive = Archive.create(folder)
    rng = np.random.default_rng(0)
    for number in range(-(-clips // clips_per_video)):
        count = min(clips_per_video, clips - number * clips_per_video)
        unit, row = _unit(number, count)
        vectors_NE = rng.normal(size=(count, config.embed_dim)).astype(np.float32)
        vectors_NE /= np.linalg.norm(vectors_NE, axis=1, keepdims=True)
        contexts = [
            PACKERS["int8"](rng.normal(size=(config.patches, config.embed_dim)).astype(np.float32))
            for _ in range(count)
        ]
        part = EmbeddedUnit(
            unit=unit,
            windows=unit.windows,
            thumbnails=(b"",) * count,
            embedding_NE=vectors_NE,
            contexts=tuple(contexts),
            intact_samples=(8,) * count,
            decode_s=0.0,
            embed_s=0.0,
        )
        archive.commit_parts(write_part([part], folder))
        archive.commit_videos([row])
    return archive


def _unit(number: int, count: int) -> tuple[Unit, VideoRow]:
    """A video of so many windows."""
    uri = f"/videos/{number}.mp4"
    video_id = f"{int(keys.of_texts([uri])[0]):016x}"  # a hash, as real ones are: rows lie on heaps by it
    windows = tuple(Window(10.0 * place, 10.0 * place + 10, (10.0 * place + 5,)) for place in range(count))
    row = VideoRow(
        video_id=video_id, uri=uri, size_bytes=1, mtime_s=1.0, fingerprint=video_id, revision=1, space=SPACE,
        duration_s=10.0 * count, width=640, height=360, rate_hz=25.0, codec="h264", rotation=0, clip_count=count,
        decoded_fraction=1.0, status="ok", error_kind=None, error=None, stage=None, permanent=False, attempts=1,
        run_id="run", indexed_at=datetime.now(UTC),
    )  # fmt: skip
    return Unit(f"{video_id}-1", video_id, 1, SPACE, uri, windows, 60.0), row


def label_set(count: int) -> LabelSet:
    """So many labels of a few words."""
    return LabelSet(tuple(Label(f"label {place}", (f"a person does thing number {place}",)) for place in range(count)))


# --- ways


class Products:
    """The products of the prompt generator's layers for so many texts, as passes of pairs make them."""

    def __init__(self, config: XClipConfig, texts: int, dtype: torch.dtype, device: str) -> None:
        E, self._layers = config.embed_dim, config.prompt_layers
        self._clips = max(1, PAIRS_PER_PASS[device.partition(":")[0]] // texts)
        generator = torch.Generator().manual_seed(1)

        def made(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).to(device, dtype)

        # Weights of their own for each layer: those of one would stay in the cache.
        self._weights = [[made(E, E), made(E, E), made(4 * E, E), made(E, 4 * E)] for _ in range(self._layers)]
        self._source = [made(E, E), made(E, E)]
        self._texts, self._inner = made(self._clips * texts, E), made(self._clips * texts, 4 * E)
        self._context = made(self._clips, config.patches, E)
        self._shape = (self._clips, texts, E)

    @torch.inference_mode()
    def __call__(self, clips: int) -> None:
        """As many products as so many clips need."""
        for _ in range(-(-clips // self._clips)):
            for place, (query, proj, up, down) in enumerate(self._weights):
                key, value = (F.linear(self._context, weight) for weight in self._source)
                if place:  # the first layer's queries are made once
                    F.linear(self._texts, query)
                attend(self._texts.view(self._shape), key, value)
                F.linear(self._texts, proj)
                F.linear(self._texts, up)
                F.linear(self._inner, down)
        if self._texts.is_cuda:
            torch.cuda.synchronize()


def read_alone(opened: OpenSpace) -> None:
    """Every clip out of the archive, as the model would take it."""
    for batch in opened.archive.visible_batches(opened.space, ["clip_id", "video_id", "embedding", "context"]):
        stored_tensors(opened.model, batch.select(["embedding", "context"]).to_pylist())


@torch.inference_mode()
def plain_score(model: XClip, text_QE: Tensor, clips: int) -> None:
    """`XClip.score` of random clips in memory, a batch at a time."""
    E, N = model.config.embed_dim, model.config.patches
    for start in range(0, clips, tagging.CLIPS_PER_BATCH):
        count = min(tagging.CLIPS_PER_BATCH, clips - start)
        model.score(torch.randn(count, E), torch.randn(count, N, E), text_QE)


def timed(work: Callable[[], object]) -> float:
    """Seconds that something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def tag_s(opened: OpenSpace, labels: LabelSet, precision: str) -> float:
    """Seconds in which all clips are tagged, as if for the first time."""
    tag_rows.drop_others(opened.archive, opened.space, labels.id, tagging="", shown=Keys([]))
    began = time.perf_counter()
    report = tagging.tag(opened, labels, TagSettings(precision=precision))
    took_s = time.perf_counter() - began
    assert report.new == report.clips, "all of them"
    return took_s


def measure(clips: int, labels: int, rounds: int, device: str) -> None:
    """Prints a table, and writes the figures down."""
    config = ARCHITECTURES["B/32"]
    model = random_model(config).to(device)
    asked = label_set(labels)
    with tempfile.TemporaryDirectory(prefix="footage-") as folder:
        few, many = (
            OpenSpace(fill(Path(folder, f"archive-{count}"), config, count), SPACE, model)
            for count in (clips // 4, clips)
        )
        counted = clips - clips // 4
        text_QE = encode_text_raw(model, asked.texts)
        ways: dict[str, Callable[[], float]] = {
            "bytes alone": lambda: timed(lambda: read_alone(many)) * counted / clips,
        }
        for name, dtype in DTYPES.items():
            products = Products(config, labels, dtype, device)
            ways[f"products alone, {name}"] = lambda products=products: timed(lambda: products(counted))
            ways[f"footage, {name}"] = lambda name=name: tag_s(many, asked, name) - tag_s(few, asked, name)
        if device == "cpu":
            ways["plain score, float32"] = lambda: timed(lambda: plain_score(model, text_QE, counted))
        for way in ways.values():
            way()  # does not count
        _print(harness.alternate(ways, rounds), counted, labels, device)


def _print(taken: dict[str, list[float]], clips: int, labels: int, device: str) -> None:
    """A line for each way, and the floors."""
    per_clip_s = {name: statistics.median(values) / clips for name, values in taken.items()}
    rows = [[name, f"{1000 * each:.2f}", f"{each * MILLION / 3600:.2f}"] for name, each in per_clip_s.items()]
    print(f"{clips} clips x {labels} labels on {device}\n")
    print(harness.table(["way", "ms a clip", "hours a million clips"], rows))
    for name in DTYPES:
        floor = [a + b for a, b in zip(taken[f"products alone, {name}"], taken["bytes alone"], strict=True)]
        ours = taken[f"footage, {name}"]
        noisy = sum(mine < least for mine, least in zip(ours, floor, strict=True))
        hours = statistics.median(floor) / clips * MILLION / 3600
        share = f"footage reaches {100 * harness.ratio(floor, ours):.0f} % of it"
        warning = f"; {noisy} of {len(ours)} rounds beat it, which is noise" if noisy else ""
        print(f"floor, {name}: {hours:.2f} hours a million; {share}{warning}")
    result = {"clips": clips, "labels": labels, "device": device, "seconds": taken}
    print(f"\nwritten to {harness.record('tagging', result)}")


# --- agreement


def agree(folder: Path, files: list[Path]) -> None:
    """Prints how tags in bfloat16 differ from those in float32."""
    opened = open_space(folder)
    for file in files:
        labels = replace(read_labels(file), background=())
        scores = [
            tagging.text_scorer(opened, labels, precision)  # type: ignore[arg-type]
            for precision in ("float32", "bfloat16")
        ]
        differences, firsts, orders, margins = [], 0, 0, []
        count = 0
        for batch in opened.archive.visible_batches(opened.space, ["embedding", "context"]):
            exact, short = (tagging.label_scores(opened, batch, score, labels)[0] for score in scores)
            differences.append(np.abs(exact - short).max())
            ranked = [np.argsort(-each, axis=1, kind="stable")[:, :3] for each in (exact, short)]
            changed = ranked[0][:, 0] != ranked[1][:, 0]
            best = np.sort(exact[changed], axis=1)
            margins += (best[:, -1] - best[:, -2]).tolist()
            firsts, orders = firsts + int(changed.sum()), orders + int((ranked[0] != ranked[1]).any(axis=1).sum())
            count += batch.num_rows
        print(
            json.dumps(
                {
                    "labels": len(labels.labels),
                    "clips": count,
                    "largest_score_difference": round(float(max(differences)), 4),
                    "another_best_label": firsts,
                    "another_order_of_the_best_three": orders,
                    "largest_margin_of_a_changed_best": round(max(margins, default=0.0), 4),
                }
            )
        )


def main() -> None:
    """Parses and runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=512)
    parser.add_argument("--labels", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--agree", nargs="+", type=Path, metavar=("ARCHIVE", "LABELS"))
    given = parser.parse_args()
    if given.agree:
        agree(given.agree[0], given.agree[1:])
        return
    measure(given.clips, given.labels, given.rounds, given.device)


if __name__ == "__main__":
    main()
