"""How much the model's own score changes what recall by the plain text vector says, and what that costs.

    python benchmarks/rerank.py ARCHIVE [LABELS.txt]

For each text: the ten best clips by cosine against the ten best by the model's score. Prints how many of the ten
change, how often the first place does, rank correlation over all candidates, and the median time of each stage,
alternated so that a busy machine hurts both alike. Times are of this machine in this run; compare only within it.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np

from pipeline import showcase
from pipeline.label_files import read_labels
from pipeline.search import Answer, search
from pipeline.serving import OpenSpace, open_space

ROUNDS = 5
DEPTH = 10


def main(archive: str, labels: str | None = None) -> None:
    """Prints the comparison for one archive."""
    texts = (
        [label.name for label in read_labels(labels).labels]
        if labels
        else [*showcase.QUERIES, *showcase.LABELS.values()]
    )
    opened = open_space(archive)
    pairs = {text: (_all(opened, text, rerank=False), _all(opened, text, rerank=True)) for text in texts}
    clips = next(iter(pairs.values()))[0].searched
    print(f"{archive}: {clips} clips, {len(texts)} texts, model {opened.model.provenance.source}")
    changed = [_exchanged(plain, model) for plain, model in pairs.values()]
    firsts = [_ids(plain)[0] != _ids(model)[0] for plain, model in pairs.values()]
    correlations = [_rank_correlation(_ids(plain), _ids(model)) for plain, model in pairs.values()]
    print(f"of the ten best, re-ranking exchanges {statistics.mean(changed):.1f} on average")
    print(f"the first place changes for {sum(firsts)} of {len(firsts)} texts")
    print(f"rank correlation over all candidates: median {statistics.median(correlations):.3f}")
    plain_s, model_s = _times(opened, texts)
    print(f"median time of a search: {1e3 * plain_s:.0f} ms by cosine, {1e3 * model_s:.0f} ms with re-ranking")


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


if __name__ == "__main__":
    if not Path(*sys.argv[1:2]).is_dir() or len(sys.argv) < 2:
        sys.exit("usage: python benchmarks/rerank.py ARCHIVE [LABELS.txt]; `make demo` makes demo/archive")
    main(*sys.argv[1:])
