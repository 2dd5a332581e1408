"""The vector index by number of clips: making it, its size, how quick searches are and what they find.

    python benchmarks/scale.py [--counts 100000 1000000 10000000] [--memory 8] [--shape filling] [--device cuda]
    python benchmarks/scale.py --lifecycle 1000000

Vectors are made up in the shape of real ones, 512 wide: all in a cone, round topics of very different sizes, clips of a
video nearer to each other than to others of its topic, and what makes them differ large in few directions (variances
fall as 1, 1/2, 1/3 ...). Two clips have a median cosine of 0.54, two of a video 0.92, and variance is as if spread over
22 directions; of 1,367 clips of 128 real videos, by the embedded model, it is 0.39, 0.87 and 14. `--shape filling` is
harder than anything seen: what makes them differ fills all directions alike. Queries are like texts: outside the cone,
each nearer to a topic than to others. Each count has a process of its own, whose peak memory is told. It makes segments
as `footage index` does (`pipeline/indexes.py`), from vectors that are made when they are asked for in place of Parquet,
maps them, and searches one query at a time: all of them once, when pages of the files may have to be read first, which
is told apart, and then again.

`raw` is FAISS's own search of the same indexes with the same parameters; `exact` compares all, where they fit into
memory; with `--device` the copy of the index that `footage serve` may take there is asked too. Recall is the part of
the exact ten best that is among the ten found, and among the 200 candidates that a search hands on, whose scores are
computed from the vectors as stored. Filters let clips pass by chance.

`--lifecycle` works on a real archive of so many clips: built anew, 1 % added, a video deleted. Results are appended to
build/bench/scale.jsonl.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, its own folder would be there

from benchmarks import harness
from pipeline import heads, index_files, index_plan, indexes, recall_gate, vectors
from pipeline.index_plan import GB, Rules
from pipeline.recall_gate import Exact
from pipeline.vector_kinds import FLAT
from pipeline.vectors import Lot, Vectors

WIDTH = 512
CLIPS_PER_VIDEO = 20
TOPICS = 4_000
LOT = 16_000  # a whole number of videos
QUERIES = 200
GATE_TEXTS = 191  # as many as ship with the package (`xclip_core.captions.everyday_texts`)
FILTERS = (0.0001, 0.01, 0.5)
MOST = 10


def _unit(matrix: Vectors) -> Vectors:
    return (matrix / np.linalg.norm(matrix, axis=-1, keepdims=True)).astype(np.float32)


@dataclass(frozen=True)
class Made:
    """So many clips, made when they are asked for: a source of vectors as `indexes` has them."""

    count: int
    shape: str = "real"
    cone_E: Vectors = field(init=False)
    topics_KE: Vectors = field(init=False)
    shares_K: Vectors = field(init=False)
    spread_EE: Vectors = field(init=False)

    @property
    def width(self) -> int:
        """E."""
        return WIDTH

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        spectrum_E = np.ones(WIDTH) if self.shape == "filling" else 1 / np.arange(1, WIDTH + 1)
        turned_EE = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
        spread_EE = np.sqrt(spectrum_E / spectrum_E.sum())[:, None] * turned_EE
        shares_K = 1 / np.arange(1, TOPICS + 1)  # Zipf's law
        object.__setattr__(self, "spread_EE", spread_EE.astype(np.float32))
        object.__setattr__(self, "cone_E", _unit(rng.normal(size=WIDTH)))
        object.__setattr__(self, "topics_KE", self.differing(rng, TOPICS))
        object.__setattr__(self, "shares_K", shares_K / shares_K.sum())

    def differing(self, rng: np.random.Generator, count: int) -> Vectors:
        """Differences between things, N x E: of length 1 in the mean, and large in few directions only."""
        return rng.standard_normal((count, WIDTH), np.float32) @ self.spread_EE

    def lot(self, number: int) -> Lot:
        """The clips of a lot, with numbers of their own, by video."""
        rng = np.random.default_rng((1, number))
        count = min(LOT, self.count - number * LOT)
        videos = -(-count // CLIPS_PER_VIDEO)
        topics = rng.choice(TOPICS, videos, p=self.shares_K)
        video_VE = self.cone_E + 0.7 * self.topics_KE[topics] + 0.5 * self.differing(rng, videos)
        video_NE = np.repeat(video_VE, CLIPS_PER_VIDEO, axis=0)[:count]
        found_NE = _unit(video_NE + 0.4 * self.differing(rng, count))
        clips_N = np.arange(number * LOT, number * LOT + count, dtype=np.uint64)
        halves_NE = found_NE.astype(np.float16)  # as archives store them
        return clips_N, clips_N // np.uint64(CLIPS_PER_VIDEO), halves_NE.astype(np.float32)

    def lots(self, seed: int | None = None) -> Iterator[Lot]:
        """All clips; with a seed in a random order of lots."""
        numbers = np.arange(-(-self.count // LOT))
        if seed is not None:
            np.random.default_rng(seed).shuffle(numbers)
        yield from map(self.lot, numbers.tolist())

    def sample(self, size: int) -> Vectors:
        """So many vectors S x E, of parts of many lots."""
        found, count = [np.zeros((0, WIDTH), np.float32)], 0
        for _, _, vectors_NE in self.lots(0) if size else ():
            found.append(vectors_NE[:: max(1, self.count // (2 * size))].copy())  # a view would keep the lot
            count += len(found[-1])
            if count >= size:
                break
        return np.concatenate(found)[:size]

    def texts(self, count: int = QUERIES) -> Vectors:
        """Vectors like those of texts, Q x E: a gap away from the cone, each nearer to a topic than to others."""
        rng = np.random.default_rng(2)
        gap_E = _unit(rng.normal(size=WIDTH))
        topics = rng.choice(TOPICS, count, p=self.shares_K)
        return _unit(1.5 * gap_E + 0.6 * self.topics_KE[topics] + 0.5 * self.differing(rng, count))

    def rules(self, memory_gb: float) -> Rules:
        """What an index of them is made by; its searches are widened by texts that are not those measured with."""
        return Rules(memory_bytes=round(memory_gb * GB), texts=lambda: self.texts(QUERIES + GATE_TEXTS)[QUERIES:])


# --- one count, in a process of its own


def measure(count: int, memory_gb: float, shape: str, device: str | None) -> None:
    """Prints what an index of so many clips takes and gives, as JSON."""
    source = Made(count, shape)
    rules = source.rules(memory_gb)
    made = index_plan.making(count, WIDTH, rules)
    texts_QE = source.texts()
    exact = _exact(source, texts_QE)
    before_mb = _peak_mb()
    with tempfile.TemporaryDirectory(dir="build") as name:
        began = time.perf_counter()
        with _own_memory() as own_mb:
            segments, recall = indexes._segments(source, made, rules, Path(name))  # noqa: SLF001
        build_s = time.perf_counter() - began
        said = {
            "count": count,
            "shape": shape,
            "kind": segments[0].kind.name,
            "lists": segments[0].kind.lists,
            "segments": len(segments),
            "probes": [segment.probes for segment in segments],
            "recall_at_build": recall,
            "expected_s": made.expected_s,
            "build_s": build_s,
            "build_own_mb": max(own_mb),
            "build_peak_mb": _peak_mb(),
            "before_mb": before_mb,
            "size_mb": sum(file.stat().st_size for file in Path(name).iterdir()) / 1e6,
        }
        index = index_files.VectorIndex(tuple(segments), 0)
        said |= searched(index, texts_QE, exact)
        if device:
            said["copied"] = _copied(index, device, texts_QE, exact)
        if count <= 1_000_000:
            said["exact"] = _exact_ms(source, texts_QE[:20])
        said["peak_mb"] = _peak_mb()
    print(json.dumps(said))


def _peak_mb() -> float:
    """The most memory this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


@contextmanager
def _own_memory() -> Iterator[list[float]]:
    """MB of this process that are no mapped files, ten times a second: mapped pages can be dropped at any time."""
    seen, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in line)
            seen.append(int(line.split()[1]) / 1000)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield seen
    finally:
        done.set()
        watching.join()


def _passes(share: float) -> Callable[[Any, Any], Any]:
    """A filter that lets a share of the clips pass, by their numbers."""
    step = round(1 / share)
    return lambda clips_N, _: clips_N % np.uint64(step) == 0


def _exact(source: Made, texts_QE: Vectors) -> dict[float, Exact]:
    """What an exact search finds, without a filter (1.0) and with each."""
    found = {share: Exact(texts_QE) for share in (1.0, *FILTERS)}
    for clips_N, videos_N, vectors_NE in source.lots():
        for share, exact in found.items():
            passes = _passes(share)(clips_N, videos_N)
            exact.see(clips_N[passes], vectors_NE[passes])
    return found


def _copied(
    index: index_files.VectorIndex, device: str, texts_QE: Vectors, exact: dict[float, Exact]
) -> dict[str, Any]:
    """The same of its copy on a device, seconds of copying, and what decides which of the two is asked."""
    from pipeline.gpu_index import GpuCopies

    copies = GpuCopies(device)
    copy_s, copied = _timed(lambda: copies.of(index))
    if copied is None:
        return {"chosen": "no room"}
    return {"copy_s": copy_s, "chosen": copies.quicker(index)[1], **searched(copied, texts_QE, exact)}


def searched(index: indexes.Searchable, texts_QE: Vectors, exact: dict[float, Exact]) -> dict[str, Any]:
    """Latencies in milliseconds and recalls, without a filter and with each; raw and ours in turn."""
    said: dict[str, Any] = {}
    for share, each in exact.items():
        allowed = None if share == 1.0 else _passes(share)
        expected_QK = each.best(MOST)
        first = [_ms(index.search, query_E, MOST, allowed) for query_E in texts_QE]  # what is mapped is read
        ours, raw, hits, candidates = [], [], [], []
        for query_E, expected_K in zip(texts_QE, expected_QK, strict=True):
            ours.append(_ms(index.search, query_E, MOST, allowed))
            if allowed is None and isinstance(index, index_files.VectorIndex):
                raw.append(_ms(_raw, index, query_E))
            found = {int(clip_id, 16) for clip_id, _ in index.search(query_E, MOST, allowed)}
            hits.append(len(found & set(expected_K.tolist())) / max(1, len(expected_K)))
            wide = {int(c, 16) for c, _ in index.search(query_E, recall_gate.CANDIDATES, allowed)}
            candidates.append(len(wide & set(expected_K.tolist())) / max(1, len(expected_K)))
        said[f"filter {share:g}" if allowed else "all"] = {
            "first_p50_ms": statistics.median(first),
            "p50_ms": statistics.median(ours),
            "p95_ms": float(np.percentile(ours, 95)),
            "raw_p50_ms": statistics.median(raw) if raw else None,
            "raw_ratio": statistics.median(a / b for a, b in zip(ours, raw, strict=True)) if raw else None,
            "recall_at_10": statistics.fmean(hits),
            "recall_of_candidates": statistics.fmean(candidates),
            "found": min(len(index.search(query_E, MOST, allowed)) for query_E in texts_QE[:20]),
        }
    return said


def _raw(index: index_files.VectorIndex, query_E: Vectors) -> None:
    """FAISS alone."""
    for segment in index.segments:
        if segment.kind.name == "pca":
            parameters = _heads_parameters(segment.probes)
        else:
            parameters = vectors.search_parameters(segment.kind, segment.probes)
        segment.index.search(query_E[None], MOST, params=parameters)


def _heads_parameters(probes: int) -> Any:
    """How FAISS searches a segment of heads by itself: by a heap of the best of all lists."""
    in_turned = faiss.SearchParametersPreTransform(index_params=heads.in_lists(probes))  # type: ignore[call-arg]
    wider = vectors.LOOKED_AT / MOST
    return faiss.IndexRefineSearchParameters(k_factor=wider, base_index_params=in_turned)  # type: ignore[call-arg]


def _exact_ms(source: Made, texts_QE: Vectors) -> float:
    """Milliseconds of an exact search by FAISS, median."""
    index = vectors.trained(FLAT, WIDTH, np.zeros((0, WIDTH), np.float32))
    for _, _, vectors_NE in source.lots():
        index.add(vectors_NE)
    return statistics.median(_ms(index.search, query_E[None], MOST) for query_E in texts_QE)


def _ms(work: Callable[..., Any], *given: Any) -> float:
    began = time.perf_counter()
    work(*given)
    return 1000 * (time.perf_counter() - began)


# --- an archive


def lifecycle(count: int, memory_gb: float) -> dict[str, Any]:
    """Seconds to build the index of a real archive of so many clips, to add 1 %, and to see a deletion."""
    from pipeline.archive import Archive
    from pipeline.parts import file_schema

    source, schema = Made(count + count // 100), file_schema("clips")
    rules = source.rules(memory_gb)
    with tempfile.TemporaryDirectory(dir="build") as name:
        archive = Archive.create(Path(name, "archive"))
        edge = count // LOT
        for number in range(edge):
            _commit(archive, schema, source.lot(number))
        build_s, index = _timed(lambda: indexes.build(archive, SPACE, WIDTH, rules=rules))
        said: dict[str, Any] = {"searches": _whole_searches(archive, source)}
        rows = _commit(archive, schema, _head(source.lot(edge), count // 100))
        add_s, added = _timed(lambda: indexes.open_current(archive, SPACE, WIDTH))
        archive.commit_videos([replace(rows[0], status="gone", revision=rows[0].revision + 1)])
        delete_s, left = _timed(lambda: indexes.open_current(archive, SPACE, WIDTH))
        open_s, _ = _timed(lambda: indexes.open_current(archive, SPACE, WIDTH))
        return said | {
            "lifecycle": count,
            "clips": index.count,
            "added": added.count - index.count,
            "deleted": added.count - left.count,
            "build_s": build_s,
            "add_s": add_s,
            "delete_s": delete_s,
            "open_s": open_s,
            "add_part": add_s / build_s,
            "segments": [(segment.kind.name, segment.count) for segment in left.segments],
        }


def _whole_searches(archive: Any, source: Made) -> dict[str, float]:
    """Median milliseconds: of opening, of a search, of one with cosines as stored, of reading 200 candidates."""
    index = indexes.open_current(archive, SPACE, WIDTH)
    reader = archive.clip_reader(SPACE, index.places)
    found: dict[str, list[float]] = {"open_ms": [], "index_ms": [], "nearest_ms": [], "candidates_ms": []}
    for query_E in source.texts(30):
        found["open_ms"].append(_ms(indexes.open_current, archive, SPACE, WIDTH))
        found["index_ms"].append(_ms(index.search, query_E, MOST))
        found["nearest_ms"].append(_ms(indexes.nearest, index, reader, query_E, MOST))
        ids = [clip_id for clip_id, _ in index.search(query_E, recall_gate.CANDIDATES)]
        found["candidates_ms"].append(_ms(reader.rows, ids, ["embedding"]))
    return {name: statistics.median(times) for name, times in found.items()}


SPACE = "scale"


def _head(lot: Lot, count: int) -> Lot:
    clips_N, videos_N, vectors_NE = lot
    return clips_N[:count], videos_N[:count], vectors_NE[:count]


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    done = work()
    return time.perf_counter() - began, done


def _commit(archive: Any, schema: Any, lot: Lot) -> list[Any]:
    """Writes a lot as a part, and shows its videos; their rows."""
    import pyarrow as pa

    from pipeline import parts
    from schemas.records import Part

    clips_N, videos_N, vectors_NE = lot
    path = f"space={SPACE}/part-{int(clips_N[0]):016x}.parquet"
    columns = {
        "clip_id": [f"{number:016x}" for number in clips_N.tolist()],
        "unit_id": [f"{number:016x}" for number in videos_N.tolist()],
        "video_id": [f"{number:016x}" for number in videos_N.tolist()],
        "revision": np.ones(len(clips_N), np.int32),
        "start_s": np.zeros(len(clips_N)),
        "end_s": np.ones(len(clips_N)),
        "frame_times_s": [[0.0]] * len(clips_N),
        "intact_samples": np.ones(len(clips_N), np.int32),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors_NE.ravel()), WIDTH).cast(
            pa.list_(pa.float32())
        ),
        "context": [b""] * len(clips_N),
        "thumbnail": [b""] * len(clips_N),
    }
    table = pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)
    file = archive.folder / "clips" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    parts.write_batches(file, schema, table.to_batches())
    archive.commit_parts([Part(path, file.stat().st_size, len(clips_N), SPACE, ())])
    rows = [_row(number) for number in np.unique(videos_N).tolist()]
    archive.commit_videos(rows)
    return rows


def _row(number: int) -> Any:
    from datetime import UTC, datetime

    from schemas.records import VideoRow

    return VideoRow(
        video_id=f"{number:016x}", uri=f"/videos/{number}.mp4", size_bytes=1, mtime_s=0.0, fingerprint=f"{number:032x}",
        revision=1, space=SPACE, duration_s=200.0, width=1280, height=720, rate_hz=25.0, codec="h264", rotation=0,
        clip_count=CLIPS_PER_VIDEO, decoded_fraction=1.0, status="ok", error_kind=None, error=None, stage=None,
        permanent=False, attempts=1, run_id="benchmark", indexed_at=datetime.now(UTC),
    )  # fmt: skip


# --- the table

HEADER = (
    *("clips", "kind", "segments", "made in s", "expected s", "GB", "built in GB"),
    *("first p50 ms", "p50 ms", "p95 ms", "/ raw", "exact ms", "recall@10", "of candidates"),
)


def cells(said: dict[str, Any]) -> list[str]:
    """A line of the table."""
    every = said["all"]
    return [
        f"{said['count']:,}",
        f"{said['kind']} {said['lists'] or ''}".strip(),
        str(said["segments"]),
        f"{said['build_s']:.0f}",
        f"{said['expected_s']:.0f}",
        f"{said['size_mb'] / 1000:.2f}",
        f"{said['build_own_mb'] / 1000:.2f}",
        f"{every['first_p50_ms']:.2f}",
        f"{every['p50_ms']:.2f}",
        f"{every['p95_ms']:.2f}",
        f"{every['raw_ratio']:.2f}",
        f"{said['exact']:.1f}" if "exact" in said else "",
        f"{every['recall_at_10']:.3f}",
        f"{every['recall_of_candidates']:.3f}",
    ]


def filter_lines(said: dict[str, Any]) -> list[list[str]]:
    """Lines of the table of filters."""
    return [
        [f"{said['count']:,}", f"{share:.2%}", *(f"{found[name]:.3g}" for name in ("p50_ms", "p95_ms", "found")),
         f"{found['recall_at_10']:.3f}", f"{found['recall_of_candidates']:.3f}"]
        for share in FILTERS
        if (found := said[f"filter {share:g}"])
    ]  # fmt: skip


COPIED_HEADER = ("clips", "pass", "CPUs p50 ms", "copy p50 ms", "copy p95 ms", "recall@10", "copied in s", "chosen")


def copied_lines(said: dict[str, Any]) -> list[list[str]]:
    """Lines of the table of a copy on a device."""
    copied = said.get("copied", {})
    return [
        [f"{said['count']:,}", name.removeprefix("filter "), f"{said[name]['p50_ms']:.2f}", f"{found['p50_ms']:.2f}",
         f"{found['p95_ms']:.2f}", f"{found['recall_at_10']:.3f}", f"{copied['copy_s']:.1f}", copied["chosen"]]
        for name, found in copied.items()
        if isinstance(found, dict)
    ]  # fmt: skip


def main() -> None:
    """Measures each count in a process of its own, and prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--memory", type=float, default=8.0, help="GB")
    parser.add_argument("--shape", choices=("real", "filling"), default="real", help="of what makes vectors differ")
    parser.add_argument("--lifecycle", type=int, help="an archive of so many clips instead")
    parser.add_argument("--device", help="that vectors are copied to, such as cuda")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    Path("build").mkdir(exist_ok=True)
    if given.one:
        measure(given.one, given.memory, given.shape, given.device)
        return
    if given.lifecycle:
        said = lifecycle(given.lifecycle, given.memory)
        harness.record("scale", said)
        print(json.dumps(said, indent=1))
        return
    lines, filters, copied = [], [], []
    options = ["--memory", str(given.memory), "--shape", given.shape]
    if given.device:
        options += ["--device", given.device]
    for count in given.counts:
        command = [sys.executable, __file__, "--one", str(count), *options]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        said = json.loads(printed.splitlines()[-1])
        harness.record("scale", said)
        lines.append(cells(said))
        filters += filter_lines(said)
        copied += copied_lines(said)
        print(harness.table(HEADER, lines[-1:]).splitlines()[-1], flush=True)
    print(harness.table(HEADER, lines), end="\n\n")
    print(harness.table(("clips", "pass", "p50 ms", "p95 ms", "found", "recall@10", "of candidates"), filters))
    if copied:
        print(harness.table(COPIED_HEADER, copied))


if __name__ == "__main__":
    main()
