"""Fine-tuning as a job: labels in, a folder with a model out; run again, it goes on where it was.

OUT/
  model.safetensors   the best model by held-out top-1 (the last where nothing is held out); `--model OUT` loads it
  last.safetensors    the model after the last step
  model.md            its card
  settings.json       everything that decides the result
  report.json         what came out
  metrics.jsonl       a line a step, and one a validation; tensorboard/ has the same as event files
  checkpoint.pt       all that is needed to go on
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipeline import curves, demux, distributed, engine, fitting, sources
from pipeline.embed import device_named
from pipeline.engine import Stage
from pipeline.feed import Unread
from pipeline.fitting import Notes, Run
from pipeline.labelled import Example, LabelledVideos, read_labelled
from pipeline.model_note import model_note
from pipeline.progress import Progress
from pipeline.protocols import FinetuneSettings, schedule_of
from pipeline.review import Review, Split, few_shots, hold_out, is_flipped, review
from pipeline.settings import EngineName
from pipeline.versions import versions
from schemas.errors import InputError
from schemas.records import Failed
from xclip_core import XClip, canonical_source, encode_text, load
from xclip_core.durable import load_state, write_text
from xclip_core.weights import infer_config, official_name

SETTINGS = "settings.json"
REPORT = "report.json"
CARD = "model.md"
FOLLOW_EVERY_S = 1.0
INSPECT_ON_RAY = 2000  # videos
ALIKE = 1 - 1e-6  # a cosine that rounding alone keeps from 1

Identity = dict[str, Any]  # everything that decides the result, as plain data
Watch = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneReport:
    """What a run did. Accuracies are of the kept model on held-out examples; None when there were none."""

    model: str  # the folder, as `--model` takes it
    steps: int
    epochs: int
    resumed_from: int  # the step of the checkpoint that this run went on from
    labels: int
    examples: int
    held_out: int
    loss: float  # of the last step
    top1: float | None
    top5: float | None
    best_epoch: int | None
    last_top1: float | None
    wall_s: float  # of this run
    unread: tuple[Unread, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that is ready to start, and what a person should know before."""

    run: Run
    identity: Identity
    review: Review
    unread: tuple[Unread, ...]


def prepare(
    labels: Path, out: Path, settings: FinetuneSettings, *, val: Path | None = None, watch: Watch = lambda _: None
) -> Prepared:
    """Reads labels, opens every video, and decides everything that can be decided before the first step.

    Raises InputError for what cannot be trained on, and where `out` holds a run with other settings.
    """
    model = load(settings.init, frames=settings.frames, image_size=settings.image_size)
    assert model.provenance is not None
    settings = replace(
        settings,
        init=canonical_source(settings.init),
        device=device_named(settings.device),
        frames=model.config.frames,
        image_size=model.config.image_size,
    )
    given = read_labelled(labels)
    validation = read_labelled(val) if val else None
    everything = (*given.examples, *(validation.examples if validation else ()))
    unread = unreadable(everything, settings, watch)
    split = _split(given, validation, {item.uri for item in unread}, settings)
    schedule = schedule_of(settings, len(split.train))
    names = tuple(sorted({example.label for example in split.train}))
    twins = indistinct(model, names)  # raises for a label that is too long, before anything is written
    run = Run(
        folder=out.absolute(),
        settings=settings,
        schedule=schedule,
        labels=names,
        train=split.train,
        held_out=split.held_out,
        flip=is_flipped(settings, names),
        bf16=_is_bf16(settings),
    )
    found = review(split, unread, settings, schedule)
    more = [
        f"{one!r} and {other!r} are the same to this model's text tower; they cannot be told apart"
        for one, other in twins
    ]
    if not curves.has_tensorboard():
        more.append(curves.NO_TENSORBOARD)
    found = replace(found, warnings=(*found.warnings, *more), notes=model.provenance.notes)
    identity = _identity(run, model.provenance.weights_hash)
    _check_folder(out, identity)
    return Prepared(run, identity, found, unread)


def finetune(prepared: Prepared, *, watch: Watch = lambda _: None) -> FinetuneReport:
    """Trains to the end, from the checkpoint in the folder if there is one, and describes what came out."""
    began, run = time.perf_counter(), prepared.run
    run.folder.mkdir(parents=True, exist_ok=True)
    resumed_from = _steps_done(run.folder)
    described = {"identity": prepared.identity, "settings": asdict(run.settings), "versions": versions()}
    write_text(run.folder / SETTINGS, json.dumps(described, indent=1, default=str) + "\n")
    # Killed between the last checkpoint and the last model, a run has no step left and is not complete.
    if resumed_from < run.schedule.steps or not (run.folder / fitting.LAST).exists():
        watch(Progress("train", resumed_from, run.schedule.steps))
        _fit(run, watch)
    report = _report(prepared, resumed_from, time.perf_counter() - began)
    write_text(run.folder / REPORT, json.dumps(asdict(report), indent=1) + "\n")
    write_text(run.folder / CARD, model_note(run, prepared.identity, report))
    return report


def indistinct(model: XClip, labels: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of labels with one and the same text vector. The text tower is frozen, so training cannot part them.

    It happens where a model knows none of the words: all that `footage-tiny` never saw share a vector.
    """
    unit_KE = encode_text(model, labels)
    alike_KK = unit_KE @ unit_KE.T > ALIKE
    return [(labels[i], labels[j]) for i, j in alike_KK.triu(diagonal=1).nonzero().tolist()]


def unreadable(examples: Iterable[Example], settings: FinetuneSettings, watch: Watch) -> tuple[Unread, ...]:
    """The videos whose packets cannot be listed. Nothing is decoded: what only fails then is left out on the way."""
    uris = sorted({sources.to_uri(example.path) for example in examples})
    # A file takes milliseconds here, and Ray a while to start.
    engine_name: EngineName = "ray" if settings.workers > 1 and len(uris) >= INSPECT_ON_RAY else "local"
    bad: list[Unread] = []
    with tempfile.TemporaryDirectory(prefix="footage-") as scratch:
        stages = [Stage(name="inspect", work=_list_packets)]
        for number, result in enumerate(engine.run(stages, uris, engine=engine_name, scratch=Path(scratch)), start=1):
            if isinstance(result, Failed):
                bad.append(Unread(result.record, result.error))
            watch(Progress("inspect", number, len(uris)))
    return tuple(sorted(bad, key=lambda item: item.uri))


def _list_packets(uris: list[str]) -> list[str]:
    """As a stage: raises VideoError for a video without a sound packet index."""
    for uri in uris:
        demux.frame_times(uri)
    return uris


def _split(
    given: LabelledVideos, validation: LabelledVideos | None, unread: set[str], settings: FinetuneSettings
) -> Split:
    """Readable examples to train on and to validate with."""
    train = [example for example in given.examples if sources.to_uri(example.path) not in unread]
    if settings.shots is not None:
        train = list(few_shots(train, settings.shots, settings.seed).train)
    if validation is None:
        return Split(tuple(train), ()) if settings.shots is not None else hold_out(train, settings.seed)
    held_out = [example for example in validation.examples if sources.to_uri(example.path) not in unread]
    return Split(tuple(train), tuple(held_out))


def _is_bf16(settings: FinetuneSettings) -> bool:
    """Whether the video side runs in bfloat16: where that is asked for, or there is a GPU that is good at it."""
    if settings.precision == "auto":
        return settings.device.startswith("cuda") and torch.cuda.is_bf16_supported()
    return settings.precision == "bf16"


def _identity(run: Run, weights_hash: str) -> Identity:
    """What decides the result. How many workers share a step does not, but for rounding."""
    return {
        "weights": weights_hash,
        "frames": run.settings.frames,
        "image_size": run.settings.image_size,
        "labels": list(run.labels),
        "training": _digest(run.train),
        "validation": _digest(run.held_out),
        "protocol": run.settings.protocol,
        "schedule": asdict(run.schedule),
        "flip": run.flip,
        "seed": run.settings.seed,
        "bf16": run.bf16,
        "clip_norm": run.settings.clip_norm,
    }


def _digest(examples: Iterable[Example]) -> str:
    """Sixteen hex digits over paths and labels, in order."""
    lines = "\n".join(f"{sources.to_uri(example.path)}\t{example.label}" for example in examples)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def _check_folder(out: Path, identity: Identity) -> None:
    """Raises InputError when a folder holds another run, or anything that is not a run's."""
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and not (out / SETTINGS).exists()):
        raise InputError(f"{out} is not empty and holds no fine-tuning run; name a new folder")
    if not (out / fitting.CHECKPOINT).exists():
        return
    before = _identity_of(out)
    now = json.loads(json.dumps(identity))
    changed = [
        f"{name} was {_short(before.get(name))}, is {_short(now[name])}" for name in now if _differs(name, before, now)
    ]
    if changed:
        raise InputError(
            f"{out} holds a run with other settings ({'; '.join(changed)}); give the same ones to go on, or another "
            "folder to begin anew"
        )


def _identity_of(folder: Path) -> Identity:
    """What decided the result of the run that a folder holds a checkpoint of."""
    written: Identity = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))["identity"]
    # Runs of earlier versions did not write their sizes down; the weights tell them.
    return written if "frames" in written else _sizes(folder) | written


def _sizes(folder: Path) -> Identity:
    """Frames and pixels of the model in a folder's checkpoint."""
    state = load_state(folder / fitting.CHECKPOINT)["training"]["model"]
    config = infer_config({official_name(name): tensor for name, tensor in state.items()})
    return {"frames": config.frames, "image_size": config.image_size}


def _differs(name: str, before: Identity, now: Identity) -> bool:
    return bool(before.get(name) != now[name])


def _short(value: Any) -> str:
    """A setting for a message."""
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _steps_done(folder: Path) -> int:
    """The step of the checkpoint in a folder; 0 when there is none."""
    path = folder / fitting.CHECKPOINT
    return int(load_state(path)["training"]["step"]) if path.exists() else 0


def _fit(run: Run, watch: Watch) -> None:
    """Trains here, or in as many workers as were asked for."""
    total = run.schedule.steps
    if run.settings.workers == 1:
        fitting.fit(run, device=run.settings.device, watch=lambda step: watch(Progress("train", step, total)))
        return
    with tempfile.TemporaryDirectory(prefix="ray-", dir=run.folder) as scratch, _following(run, watch):
        distributed.run_together(
            partial(_fit_worker, run),
            workers=run.settings.workers,
            on_gpu=run.settings.device.startswith("cuda"),
            scratch=Path(scratch),
        )


@contextmanager
def _following(run: Run, watch: Watch) -> Iterator[None]:
    """Watches, from outside, how far the worker that writes has come."""
    done = threading.Event()

    def follow() -> None:
        while not done.wait(FOLLOW_EVERY_S):
            watch(Progress("train", curves.last_step(run.folder), run.schedule.steps))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _fit_worker(run: Run, device: str) -> None:
    """One worker's share of a run."""
    fitting.fit(run, device=device)


def _report(prepared: Prepared, resumed_from: int, wall_s: float) -> FinetuneReport:
    """What the checkpoint of a finished run says."""
    run = prepared.run
    notes = Notes.of(load_state(run.folder / fitting.CHECKPOINT)["notes"])
    best = notes.best
    late = [Unread(uri, error) for uri, error in sorted(notes.unread.items())]
    return FinetuneReport(
        model=str(run.folder),
        steps=run.schedule.steps,
        epochs=run.schedule.epochs,
        resumed_from=resumed_from,
        labels=len(run.labels),
        examples=len(run.train),
        held_out=len(run.held_out),
        loss=notes.loss,
        top1=best.top1 if best else None,
        top5=best.top5 if best else None,
        best_epoch=best.epoch if best else None,
        last_top1=notes.last.top1 if notes.last else None,
        wall_s=wall_s,
        unread=(*prepared.unread, *late),
    )
