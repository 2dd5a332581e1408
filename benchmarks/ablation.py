"""Which of X-CLIP's parts a model owes its motion to: the paper's ablation, on generated footage.

    python benchmarks/ablation.py RUNS.jsonl            # hours; a killed run goes on where it stopped
    python benchmarks/ablation.py RUNS.jsonl --table    # the table of what is there

For each seed one CLIP is trained on single frames, and each variant goes on from that same CLIP: the same clips in the
same order, the same texts, the same number of steps. Each variant has one part more than the one before: the mean of
CLIP's frame vectors; messages between frames (CCT); multi-frame integration (MIT); the video-specific prompt. One more
stands aside, MIT without messages, to tell what either does alone.
"""

# B clips, T frames, L tokens, N patches, D vision width, E joint dimension, K texts

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xclip_core.ablation import PARTS, cut
from xclip_core.captions import training_words
from xclip_core.config import XClipConfig
from xclip_core.guides import Guides
from xclip_core.model import XClip
from xclip_core.objective import clip_loss, frame_loss
from xclip_core.pretrain import (
    CLIP_RECIPE,
    CLIPS,
    FRAME_RECIPE,
    FRAMES,
    LAST_LOSSES,
    PLAIN_WEIGHT,
    Plan,
    new_model,
)
from xclip_core.scenes import MOTIONS, NINE_MOTIONS, OPPOSITE, VALUES, random_scene
from xclip_core.synthetic import batches
from xclip_core.training import train
from xclip_core.validate import (
    Ask,
    Clips,
    cosines,
    encode_scenes,
    film_cropped,
    label_texts,
    opposite_accuracy,
    scores,
    search_figures,
    told_apart,
)
from xclip_core.vocabulary import Vocabulary, vocabulary_of

log = logging.getLogger("ablation")

SEEDS = (0, 1, 2)
PLAN = Plan(
    frames=replace(FRAMES, steps=600, warmup_steps=60),
    clips=replace(CLIPS, steps=500, warmup_steps=50),
    frame_recipe=replace(FRAME_RECIPE, shots=0.0),
    clip_recipe=replace(CLIP_RECIPE, clips=24, captions=8, shots=0.0),
)
HELD_OUT = 600  # clips of the nine motions, and as many of all eleven
HELD_OUT_SEED = (1000, 1)  # never one of training
# A motion and its opposite are one axis: all that can be known of frames whose order is not.
AXIS = {motion: min(motion, OPPOSITE.get(motion, motion)) for motion in NINE_MOTIONS}

State = dict[str, Tensor]
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Variant:
    """Which of the paper's parts a model has."""

    name: str
    messages: bool = False
    integration: bool = False
    prompt: bool = False

    @property
    def lacks(self) -> list[str]:
        """The parts to be cut out."""
        return [part for part in PARTS if not getattr(self, part)]


CLIP = Variant("frame-mean CLIP")
LADDER = (
    CLIP,
    Variant("+ CCT", messages=True),
    Variant("+ MIT", messages=True, integration=True),
    Variant("+ prompt", messages=True, integration=True, prompt=True),
)
VARIANTS = (*LADDER, Variant("CLIP + MIT", integration=True))


def build(variant: Variant, config: XClipConfig, state: State) -> tuple[XClip, XClip]:
    """A whole model with these weights, and what a variant has of it: what one learns, the other knows."""
    whole = XClip(config)
    whole.load_state_dict(state)
    return whole, cut(whole, variant.lacks)


@dataclass(frozen=True, slots=True)
class Start:
    """What the variants of one seed go on from: a CLIP trained on single frames, and its guide."""

    model: State
    guides: State


def train_clip(plan: Plan, vocabulary: Vocabulary) -> Start:
    """The single-frame stage. Messages, integration and prompts keep their initial values, as in the paper."""
    state = new_model(vocabulary, plan.seed, plan.config).state_dict()
    whole, model = build(CLIP, replace(plan.config, vocab_size=len(vocabulary)), state)
    guides = Guides(plan.config.embed_dim, plan.seed)
    tokenise = partial(vocabulary.tokenise, rng=np.random.default_rng([plan.seed, 0]))
    loss_of = partial(frame_loss, model, tokenise=tokenise, guides=guides)
    train(model, batches(plan.frame_recipe, [plan.seed, 1]), loss_of, plan.frames, guide=guides)
    return Start(whole.state_dict(), guides.state_dict())


def kept_start(plan: Plan, vocabulary: Vocabulary, file: Path) -> Start:
    """The single-frame stage, from a file if it was run before."""
    if not file.exists():
        torch.save(asdict(train_clip(plan, vocabulary)), part := file.with_name(f"{file.name}.part"))
        part.replace(file)
    return Start(**torch.load(file, weights_only=True))


def train_variant(variant: Variant, plan: Plan, vocabulary: Vocabulary, start: Start) -> tuple[XClip, list[float]]:
    """The clip stage of one variant, with the loss of each step.

    The loss is that of `pretrain`, for all: without a prompt its two terms, by score and by cosine, are the same, so
    that texts weigh as much against the guide as they do with one.
    """
    whole, model = build(variant, replace(plan.config, vocab_size=len(vocabulary)), start.model)
    guides = Guides(plan.config.embed_dim, plan.seed)
    guides.load_state_dict(start.guides)
    tokenise = partial(vocabulary.tokenise, rng=np.random.default_rng([plan.seed, 3]))
    loss_of = partial(clip_loss, model, tokenise=tokenise, guides=guides, plain_weight=PLAIN_WEIGHT)
    losses = train(model, batches(plan.clip_recipe, [plan.seed, 2]), loss_of, plan.clips, guide=guides)
    return with_all_words(variant, whole, vocabulary, plan.config), losses


def with_all_words(variant: Variant, whole: XClip, vocabulary: Vocabulary, config: XClipConfig) -> XClip:
    """The variant with CLIP's whole token table, as the held-out figures ask through the real tokeniser."""
    state, name = whole.state_dict(), "text_encoder.token_embedding.weight"
    state[name] = vocabulary.expand(state[name], config.vocab_size)
    return build(variant, config, state)[1].eval()


def figures_of(model: XClip, clips: int) -> dict[str, float]:
    """Held-out accuracies by name, on the same clips for every variant and seed."""
    rng = np.random.default_rng(HELD_OUT_SEED)
    nine_scenes = [random_scene(rng, NINE_MOTIONS) for _ in range(clips)]
    any_scenes = [random_scene(rng) for _ in range(clips)]
    nine, shuffled = encode_scenes(model, nine_scenes, rng, film_cropped)
    anything, _ = encode_scenes(model, any_scenes, rng, film_cropped)
    by_score, by_cosine = (motion_figures(model, nine, shuffled, anything, ask) for ask in (scores, cosines))
    still = {name: told_apart(model, anything, name, VALUES[name]) for name in ("colour", "size", "place")}
    by_cosine = {f"{name}, plain cosine": value for name, value in by_cosine.items()}
    return by_score | still | search_figures(model, anything, rng) | by_cosine


def motion_figures(model: XClip, nine: Clips, shuffled: Clips, anything: Clips, ask: Ask) -> dict[str, float]:
    """What is known of motion, taken apart; `shuffled` are the clips of `nine` with their frames in random order."""
    return {
        "nine motions": told_apart(model, nine, "motion", NINE_MOTIONS, ask),
        "axis of motion, or still": axis_accuracy(model, nine, ask),
        "a direction or its opposite": opposite_accuracy(model, nine, ask),
        "growing or shrinking": told_apart(model, anything, "motion", ("growing", "shrinking"), ask),
        "slow or fast": told_apart(model, anything, "speed", VALUES["speed"], ask),
        "eleven motions": told_apart(model, anything, "motion", MOTIONS, ask),
        "nine motions, frames shuffled": told_apart(model, shuffled, "motion", NINE_MOTIONS, ask),
        "axis of motion, frames shuffled": axis_accuracy(model, shuffled, ask),
        "a direction or its opposite, frames shuffled": opposite_accuracy(model, shuffled, ask),
    }


def axis_accuracy(model: XClip, nine: Clips, ask: Ask) -> float:
    """How often the best of the nine motions is the clip's own or its opposite; chance is 17 in 81."""
    best_B = ask(model, nine, label_texts("motion", NINE_MOTIONS)).argmax(dim=-1).tolist()
    pairs = zip(best_B, nine.truths, strict=True)
    return float(np.mean([AXIS[NINE_MOTIONS[k]] == AXIS[truth["motion"]] for k, truth in pairs]))


def run_all(runs: Path, plan: Plan, seeds: Sequence[int], variants: Sequence[Variant], *, clips: int) -> None:
    """Every variant of every seed that `runs`, a file of JSON lines, has no record of; a line for each as it ends."""
    vocabulary = vocabulary_of(training_words())
    for seed in seeds:
        seeded = replace(plan, seed=seed)
        done = finished(runs, seeded)
        for variant in variants:
            if variant.name in done:
                continue
            start = kept_start(seeded, vocabulary, runs.with_suffix(f".seed{seed}.pt"))
            record = run(variant, seeded, vocabulary, start, clips=clips)
            with runs.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            log.info("%s, seed %d: %s", variant.name, seed, record["figures"])


def finished(runs: Path, plan: Plan) -> set[str]:
    """The names of the variants of which there is a record for a plan's seed. Exits if one was made by another plan."""
    records = [record for record in read_runs(runs) if record["plan"]["seed"] == plan.seed]
    if any(record["plan"] != asdict(plan) for record in records):
        sys.exit(f"{runs} holds runs of another plan; name another file, or print it as it is with --table")
    return {record["variant"] for record in records}


def run(variant: Variant, plan: Plan, vocabulary: Vocabulary, start: Start, *, clips: int) -> Record:
    """One variant trained and measured, as a record that says all that went in."""
    log.info("%s, seed %d", variant.name, plan.seed)
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    model, losses = train_variant(variant, plan, vocabulary, start)
    wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    return {
        "variant": variant.name,
        "plan": asdict(plan),
        "clips_seen": plan.clips.steps * plan.clip_recipe.clips,
        "wall_s": round(wall_s, 1),
        "cpu_s": round(cpu_s, 1),
        "loss": round(statistics.mean(losses[-LAST_LOSSES:]), 4),
        "held_out_clips": clips,
        "figures": {name: round(value, 4) for name, value in figures_of(model, clips).items()},
    }


def read_runs(runs: Path) -> list[Record]:
    """The records of a file of JSON lines; none if there is no file."""
    return [json.loads(line) for line in runs.read_text("utf-8").splitlines()] if runs.exists() else []


def table(records: Sequence[Record]) -> str:
    """Mean and standard deviation over seeds in per cent as Markdown: a line per figure, a column per variant."""
    names = [v.name for v in VARIANTS if any(r["variant"] == v.name for r in records)]
    groups = [[r for r in records if r["variant"] == name] for name in names]
    lines = [f"| per cent | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    for figure in records[0]["figures"]:
        cells = [spread([100 * r["figures"][figure] for r in group]) for group in groups]
        lines.append(f"| {figure} | {' | '.join(cells)} |")
    for name, title in (("loss", "loss at the end"), ("cpu_s", "seconds of one core")):
        digits = 3 if name == "loss" else 0
        cells = [spread([r[name] for r in group], digits) for group in groups]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines.append(f"| seeds | {' | '.join(str(len(group)) for group in groups)} |")
    return "\n".join(lines)


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean and sample standard deviation; the mean alone of one value."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def main() -> None:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", type=Path, help="the file of JSON lines to add to; kept starts lie beside it")
    parser.add_argument("--table", action="store_true", help="run nothing")
    given = parser.parse_args()
    if not given.table:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
        torch.set_num_threads(1)  # results differ in the last digits between counts
        given.runs.parent.mkdir(parents=True, exist_ok=True)
        run_all(given.runs, PLAN, SEEDS, LADDER, clips=HELD_OUT)
        run_all(given.runs, PLAN, SEEDS, VARIANTS, clips=HELD_OUT)
    print(table(read_runs(given.runs)))


if __name__ == "__main__":
    main()
