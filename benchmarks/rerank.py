"""How much the model's own score changes and improves what recall by the plain text vector says, and what that costs.

    python benchmarks/rerank.py ARCHIVE [LABELS.txt | QUERIES.csv]
    python benchmarks/rerank.py --random b32

For each text, the ten best clips by cosine against the ten best by the model's score: how many of the ten change, how
often the first place does, rank correlation over all candidates. With right answers, as `footage eval-search` takes
them: R@k, mAP and median rank of both orders. Then times, alternated so that a busy machine hurts all alike: of a
search, and of the second stage alone for M candidates (reading, unpacking, scoring). Where contexts are stored as
float16: how the order changes when they are rounded to int8. `--random` times unpacking and scoring for a model of a
released one's sizes with random weights. Times are of this machine in this run; compare only within it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline import contexts, indexes, search_evaluation, showcase
from pipeline.label_files import read_labels
from pipeline.search import CLIPS_PER_PASS, Answer, search, stored_tensors
from pipeline.search_evaluation import LabelledQuery
from pipeline.serving import OpenSpace, open_space
from xclip_core import XClip, XClipConfig, encode_text, encode_text_raw

ROUNDS = 5
DEPTH = 10
CANDIDATES = (100, 1000)
SIZES = {
    name: XClipConfig(
        frames=8,
        image_size=224,
        patch_size=patch_size,
        embed_dim=512,
        vision_width=768,
        vision_layers=1,  # the second stage sees no frames
        text_width=512,
        text_layers=12,
    )
    for name, patch_size in (("b32", 32), ("b16", 16))
}


def main(archive: str, asked: str | None = None) -> None:
    """Prints the comparison for one archive."""
    labelled = search_evaluation.read_queries(Path(asked)) if asked and asked.endswith(".csv") else []
    opened = open_space(archive)
    texts = [each.text for each in labelled] or _texts(asked)
    pairs = {text: (_all(opened, text, rerank=False), _all(opened, text, rerank=True)) for text in texts}
    clips = next(iter(pairs.values()))[0].searched
    print(f"{archive}: {clips} clips, {len(texts)} texts, model {opened.model.provenance.source}")
    changed = [_exchanged(plain, model) for plain, model in pairs.values()]
    firsts = [_ids(plain)[0] != _ids(model)[0] for plain, model in pairs.values()]
    correlations = [_rank_correlation(_ids(plain), _ids(model)) for plain, model in pairs.values()]
    print(f"of the ten best, re-ranking exchanges {statistics.mean(changed):.1f} on average")
    print(f"the first place changes for {sum(firsts)} of {len(firsts)} texts")
    print(f"rank correlation over all candidates: median {statistics.median(correlations):.3f}")
    if labelled:
        _print_retrieval(opened, labelled, clips)
    plain_s, model_s = _times(opened, texts)
    print(f"median time of a search: {1e3 * plain_s:.0f} ms by cosine, {1e3 * model_s:.0f} ms with re-ranking")
    for candidates in (each for each in CANDIDATES if each <= clips):
        _print_stage(opened, texts, candidates)
    _print_rounding(opened, texts)


def _texts(labels: str | None) -> list[str]:
    """Texts to ask: those of a label set, or what the demo asks."""
    if labels:
        return [label.name for label in read_labels(labels).labels]
    return [*showcase.QUERIES, *showcase.LABELS.values()]


def _all(opened: OpenSpace, text: str, *, rerank: bool) -> Answer:
    """Every candidate, ranked."""
    return search(opened, text, top=200, rerank=rerank)


def _ids(answer: Answer) -> list[str]:
    return [hit.clip_id for hit in answer.hits]


def _exchanged(plain: Answer, model: Answer) -> int:
    """How many of the best DEPTH by the model are not among the best DEPTH by cosine."""
    return len(set(_ids(model)[:DEPTH]) - set(_ids(plain)[:DEPTH]))


def _rank_correlation(first: list[str], second: list[str]) -> float:
    """Spearman's rho of two orders of the same clips."""
    places = {clip_id: place for place, clip_id in enumerate(second)}
    shared = [places[clip_id] for clip_id in first if clip_id in places]
    return float(np.corrcoef(np.arange(len(shared)), np.argsort(np.argsort(shared)))[0, 1])


# --- with right answers


def _print_retrieval(opened: OpenSpace, labelled: Sequence[LabelledQuery], clips: int) -> None:
    """How well both orders find what they should: of all clips, so that nothing is lost to the depth."""
    found = search_evaluation.evaluate(opened, labelled, depth=clips)
    print(f"{len(labelled)} queries with {sum(len(each.truths) for each in labelled)} right answers, all clips ranked:")
    for name, figures in (("by cosine", found.plain), ("re-ranked", found.reranked)):
        if figures is not None:
            shares = [figures.recall_at_1, figures.recall_at_5, figures.recall_at_10, figures.mean_average_precision]
            said = " ".join(
                f"{key} {100 * value:.1f} %" for key, value in zip(("R@1", "R@5", "R@10", "mAP"), shares, strict=True)
            )
            print(f"  {name}: {said}, median rank {figures.median_rank}")
    changes = [each.final.average_precision - each.plain.average_precision for each in found.asked]
    better, worse = sum(change > 0 for change in changes), sum(change < 0 for change in changes)
    print(f"  average precision is better for {better}, worse for {worse} and the same for the rest")


# --- times


def _times(opened: OpenSpace, texts: list[str]) -> tuple[float, float]:
    """Median seconds of a search by cosine and with re-ranking, ten hits, alternated."""
    taken: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(ROUNDS):
        for text in texts:
            for rerank in (False, True):
                began = time.perf_counter()
                search(opened, text, top=DEPTH, rerank=rerank)
                taken[rerank].append(time.perf_counter() - began)
    return statistics.median(taken[False]), statistics.median(taken[True])


def _print_stage(opened: OpenSpace, texts: list[str], candidates: int) -> None:
    """What the second stage takes for so many candidates: reading their rows, unpacking contexts, scoring."""
    index = indexes.open_current(opened.archive, opened.space, opened.model.config.embed_dim)
    taken: list[tuple[float, float, float]] = []
    for text in texts[:DEPTH]:
        query_E = encode_text(opened.model, [text])[0].cpu().numpy()
        ids = [clip_id for clip_id, _ in index.search(query_E, candidates)]
        reader = opened.archive.clip_reader(opened.space, index.places)
        began = time.perf_counter()
        clips = list(reader.rows(ids, ["embedding", "context"]).values())
        taken.append((time.perf_counter() - began, *_scoring(opened.model, clips, text)))
    read_s, unpack_s, score_s = (statistics.median(each) for each in zip(*taken, strict=True))
    print(
        f"re-ranking {candidates} candidates: {1e3 * (read_s + unpack_s + score_s):.0f} ms "
        f"({1e3 * read_s:.0f} reading, {1e3 * unpack_s:.0f} unpacking, {1e3 * score_s:.0f} scoring)"
    )


def _scoring(model: Any, clips: list[dict[str, Any]], text: str) -> tuple[float, float]:
    """Seconds of unpacking and of scoring clip rows, by passes as a search makes them."""
    text_KE = encode_text_raw(model, [text])
    unpack_s = score_s = 0.0
    for first in range(0, len(clips), CLIPS_PER_PASS):
        began = time.perf_counter()
        tensors = stored_tensors(model, clips[first : first + CLIPS_PER_PASS])
        between = time.perf_counter()
        with torch.inference_mode():
            model.score(*tensors, text_KE).tolist()
        unpack_s += between - began
        score_s += time.perf_counter() - between
    return unpack_s, score_s


def time_random(size: str) -> None:
    """What unpacking and scoring takes for a released model's sizes; random weights take as long as trained ones."""
    model = XClip(SIZES[size]).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(0.02 * torch.randn(value.shape, generator=generator))
    P, E = model.config.patches, model.config.embed_dim
    rng = np.random.default_rng(0)
    for code in ("int8", "float16"):
        packed = contexts.PACKERS[code](rng.normal(size=(P, E)).astype(np.float32))
        clip = {"embedding": rng.normal(size=E).astype(np.float32), "context": packed}
        for candidates in CANDIDATES:
            taken = [_scoring(model, [clip] * candidates, "a dog runs") for _ in range(ROUNDS + 1)][1:]
            unpack_s, score_s = (statistics.median(each) for each in zip(*taken, strict=True))
            print(
                f"{size} (P {P}, E {E}), {code}: {candidates} candidates in {1e3 * (unpack_s + score_s):.0f} ms "
                f"({1e3 * unpack_s:.0f} unpacking, {1e3 * score_s:.0f} scoring), {len(packed) / 1000:.1f} kB a clip"
            )


# --- rounding


def _print_rounding(opened: OpenSpace, texts: list[str]) -> None:
    """What storing contexts as int8 and not as float16 does to the order of all clips."""
    P, E = opened.model.config.patches, opened.model.config.embed_dim
    clips = opened.archive.visible_clips(opened.space, ["clip_id", "embedding", "context"]).to_pylist()
    if len(clips[0]["context"]) != 2 * P * E:
        print("contexts are not stored as float16: index with --context float16 to see what int8 would change")
        return
    rounded = [{**clip, "context": contexts.PACKERS["int8"](contexts.unpack(clip["context"], P, E))} for clip in clips]
    compared = [_compared(*(_scores(opened.model, rows, text) for rows in (clips, rounded))) for text in texts]
    off, exchanged, moved, correlation = (np.array(column) for column in zip(*compared, strict=True))
    print(
        f"int8 for float16 contexts: logits are off by {off.mean():.4f} on average, {off.max():.4f} at most of a mean;"
    )
    print(f"  of the ten best, {exchanged.mean():.2f} are exchanged on average, {exchanged.max():.0f} at most;")
    print(
        f"  a clip of the ten best moves by {moved.max():.0f} ranks at most, by {np.mean(moved):.1f} in the mean text;"
    )
    print(f"  rank correlation over all {len(clips)} clips: {correlation.min():.5f} at worst")


def _scores(model: Any, clips: list[dict[str, Any]], text: str) -> np.ndarray:
    """The model's logits of clip rows."""
    text_KE = encode_text_raw(model, [text])
    score: Callable[..., Any] = torch.inference_mode()(model.score)
    parts = [clips[first : first + CLIPS_PER_PASS] for first in range(0, len(clips), CLIPS_PER_PASS)]
    return np.concatenate([score(*stored_tensors(model, part), text_KE)[:, 0].cpu().numpy() for part in parts])


def _compared(exact: np.ndarray, rounded: np.ndarray) -> tuple[float, int, int, float]:
    """Mean difference, how many of the ten best are exchanged, how far one of them moves at most, rank correlation."""
    orders = [np.argsort(-each, kind="stable") for each in (exact, rounded)]
    places = [np.argsort(order) for order in orders]
    best = orders[0][:DEPTH]
    moved = int(np.abs(places[0][best] - places[1][best]).max())
    exchanged = len(set(best.tolist()) - set(orders[1][:DEPTH].tolist()))
    return float(np.abs(exact - rounded).mean()), exchanged, moved, float(np.corrcoef(*places)[0, 1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", nargs="?", help="`make demo` makes demo/archive")
    parser.add_argument("asked", nargs="?", help="a label set, or a table of queries with right answers")
    parser.add_argument("--random", choices=SIZES)
    arguments = parser.parse_args()
    if arguments.random:
        time_random(arguments.random)
    elif arguments.archive and Path(arguments.archive).is_dir():
        main(arguments.archive, arguments.asked)
    else:
        parser.error("expected an ARCHIVE, or --random")
