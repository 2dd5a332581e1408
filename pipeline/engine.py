"""Two ways to run the same stages: a plain loop, and Ray Data. The only place that knows Ray Data.

A stage maps a batch of records to records. A bad file (`VideoError`) becomes a `Failed` record here and nowhere else.
Any other exception is a bug: it stops the run, but in a stage that opens strangers' files, where it costs the one file
that provoked it and is called a bug in its row. On Ray, decoding runs in tasks that are isolated, bounded by a deadline
and recycled; their death becomes a `Failed` record too (see `walls`), and what leaves no trace the caller counts.
The loop has a cap on memory and no other wall: it is for tests, debugging and small jobs.

The shape (read_parquet leaf, one record per block, bounded retries, errored blocks tolerated) was measured: with the
defaults a crashing worker is restarted for ever, and one bad record takes its block along.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
import tempfile
import traceback
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import interrupts, logs, room, walls
from pipeline.pools import Machines
from pipeline.settings import EngineName
from schemas.errors import EngineError, FootageError, VideoError, first_line
from schemas.records import BUG, Failed

# Tasks: one retry, since a crash may have been the neighbour's fault; a fresh process after 200, since decoders leak.
TASK_OPTIONS = {"max_retries": 1, "max_calls": 200}
ACTOR_OPTIONS = {"max_restarts": -1, "max_task_retries": 1}
# Set unless the user has: Ray's notes on its own internals would go to the user's terminal, some of them to stdout.
# Nothing but `start_ray` starts Ray: an iterator of Ray Data that a signal broke off is cleared away after the end and
# calls Ray once more, which would start a second cluster while the interpreter ends, and wait for ever.
RAY_ENVIRONMENT = {
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_worker_maximum_startup_concurrency": "8",
    "RAY_ENABLE_AUTO_CONNECT": "0",
    # What each process takes, for a dashboard that is not there: looked up every few seconds it is 2 % of a core.
    "REPORTER_UPDATE_INTERVAL_MS": "60000",
    # Lines that Ray is not to print: all. Of a node that died it tells on stdout, where a report in JSON is.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",
}
# So many bugs, and more of them than of everything else: what is wrong is not a file that nobody thought of.
MAX_BUGS = 5
# With fewer logical CPUs the streaming executor can starve without a word.
MIN_LOGICAL_CPUS = 4
# What a worker takes of a node's custom resource: so little that CPUs and GPUs are what limits, and the resource only
# says where.
RESOURCE_SHARE = 0.001


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A step of work and what it needs. `work` must pickle small: settings travel, state wakes up in the worker."""

    name: str
    work: Callable[[list[Any]], list[Any]]
    batch_size: int = 1  # records per call; only stages of 1 may raise VideoError
    resident: bool = False  # keep workers and their state instead of short tasks
    workers: int = 1  # of a resident stage; they are spread over the machines of a cluster
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    resource: str | None = None  # a custom resource of Ray's: only nodes that offer it do this work
    deadline_s: Callable[[Any], float] | None = None  # per record, for stages of 1; enforced on Ray only
    memory_bytes: int | None = None  # how much more than before a call may take
    wake: Callable[[], None] | None = None  # done before each call, outside its memory: what it starts once, and keeps
    hostile: bool = False  # opens strangers' files: a bug that one provokes becomes its failure; for stages of 1


def run(stages: list[Stage], records: Iterable[Any], *, engine: EngineName, scratch: Path) -> Iterator[Any]:
    """Results of the last stage, and `Failed` records of any, as they come and in no particular order.

    `scratch` is an empty folder that all workers can reach. Raises what a buggy stage raised (as EngineError on Ray),
    and EngineError when hostile stages fail by bugs, and hardly otherwise.
    """
    return _believed(ENGINES[engine](stages, records, scratch))


def _believed(results: Iterator[Any]) -> Iterator[Any]:
    """The same results, until bugs are more than MAX_BUGS and than all the rest."""
    bugs = others = 0
    for result in results:
        is_bug = isinstance(result, Failed) and result.kind == BUG
        bugs, others = bugs + is_bug, others + (not is_bug)
        if bugs >= MAX_BUGS and bugs > others:
            raise EngineError(f"a bug, and no bad file: {bugs} of {bugs + others} records failed so; {result.error}")
        yield result


def attempt(stage: Stage, records: list[Any]) -> list[Any]:
    """One call of a stage: failures of earlier stages pass through, a bad file becomes one."""
    failed = [record for record in records if isinstance(record, Failed)]
    sound = [record for record in records if not isinstance(record, Failed)]
    if not sound:
        return failed
    if stage.wake is not None:
        stage.wake()
    try:
        with nullcontext() if stage.memory_bytes is None else walls.memory_cap(stage.memory_bytes):
            return failed + stage.work(sound)
    except VideoError as error:
        if len(sound) > 1:
            raise EngineError(f"stage {stage.name} raised {error!r} for a batch; only one record may fail") from error
        return [*failed, Failed(sound[0], error.kind, str(error), stage.name, permanent=error.permanent)]
    except (FootageError, OSError):  # the machine's: a full disk, an archive that went away
        raise
    except Exception as error:
        if not stage.hostile:
            raise
        return [*failed, Failed(sound[0], BUG, walls.told(error), stage.name, permanent=False)]


# --- the plain loop


def _run_local(stages: list[Stage], records: Iterable[Any], _scratch: Path) -> Iterator[Any]:
    """Every stage in this process, lazily, one batch after the other."""
    for stage in stages:
        records = _apply(stage, records)
    return iter(records)


def _apply(stage: Stage, records: Iterable[Any]) -> Iterator[Any]:
    """One stage over a stream of records."""
    source = iter(records)
    while batch := list(islice(source, stage.batch_size)):
        yield from attempt(stage, batch)


# --- Ray Data


def _run_ray(stages: list[Stage], records: Iterable[Any], scratch: Path) -> Iterator[Any]:
    """The same on Ray Data. Records cross between processes as pickles in a binary column."""
    plan = scratch / f"plan-{uuid.uuid4().hex}.parquet"
    pq.write_table(pa.table({"record": pa.array(list(map(_dump, records)), pa.large_binary())}), plan)
    dataset = _dataset(stages, plan, scratch)
    for batch in dataset.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0):
        _raise_bugs(scratch)
        yield from (_load(blob.as_py()) for blob in batch["record"])
    _raise_bugs(scratch)
    yield from walls.deaths(scratch)


def _dataset(stages: list[Stage], plan: Path, scratch: Path) -> Any:
    """The lazy dataset that reads the plan and runs the stages, one record per block."""
    ray = start_ray()
    with warnings.catch_warnings():
        # Retry limits have no named parameters in Ray 2.60, and the unnamed way is deprecated.
        warnings.simplefilter("ignore")
        _set_rules(ray)
        dataset = ray.data.read_parquet(str(plan)).repartition(target_num_rows_per_block=1)
        for stage in stages:
            dataset = _add(ray, dataset, stage, scratch)
    return dataset


def machines(engine: EngineName, resource: str | None = None) -> Machines:
    """What an engine can use; of Ray, what the nodes of its cluster have now, or those that offer a custom resource.

    A node without CPUs, as heads of clusters often are, is none. Raises EngineError where no node offers the resource:
    Ray would wait for one for ever.
    """
    if engine == "local":
        return Machines(os.cpu_count() or 1)
    nodes = [node["Resources"] for node in start_ray().nodes() if node["Alive"]]
    usable = [has for has in nodes if has.get("CPU") and (resource is None or has.get(resource))]
    if resource is not None and not usable:
        offered = sorted({name for has in nodes for name in has} - {"CPU", "GPU", "memory", "object_store_memory"})
        custom = ", ".join(name for name in offered if ":" not in name) or "none"
        raise EngineError(
            f"no node of the cluster offers CPUs and the custom resource {resource!r}; its {len(nodes)} nodes offer "
            f"{custom}; start some with: ray start --address HEAD --resources '{{\"{resource}\": 1}}'"
        )
    cpus, gpus = (int(sum(has.get(kind, 0) for has in usable)) for kind in ("CPU", "GPU"))
    if len(nodes) == 1:  # Ray is told of more logical CPUs than a small machine has
        cpus = min(cpus, os.cpu_count() or 1)
    return Machines(max(1, cpus), gpus, max(1, len(usable)))


def is_cluster() -> bool:
    """Whether Ray is a cluster that somebody else started, whose nodes may have what this machine has not."""
    return bool(os.environ.get("RAY_ADDRESS"))


def start_ray() -> Any:
    """Joins the cluster that RAY_ADDRESS names, or starts one on this machine; the library."""
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    if not ray.is_initialized():
        cpus = None if is_cluster() else max(MIN_LOGICAL_CPUS, os.cpu_count() or 1)
        # One line about the log level just set, and notes on what Ray will change; failures to start are exceptions.
        with _failures_told(), warnings.catch_warnings(), _no_stderr(), interrupts.kept_from_others():
            warnings.simplefilter("ignore")
            ray.init(num_cpus=cpus, logging_level="ERROR", log_to_driver=False, include_dashboard=False)
    return ray


def metrics() -> Any:
    """Ray's counters and gauges; None where Ray does not run in this process: it is not started for them alone."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    from ray.util import metrics

    return metrics


@contextmanager
def _failures_told() -> Iterator[None]:
    """Turns what Ray raises when it cannot start, bare exceptions among it, into what somebody can act on."""
    try:
        yield
    except Exception as error:
        folder = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
        room.check_temporary(folder)
        raise EngineError(
            f"Ray cannot be started: {first_line(error)}; it needs memory, and a temporary folder with a short path "
            f"and room (TMPDIR, now {folder}); more is in {folder}/ray/session_latest/logs; a small pile can do "
            "without it (--engine local)"
        ) from error


def _set_rules(ray: Any) -> None:
    """The rules that keep a run of Ray Data alive and quiet."""
    context = ray.data.DataContext.get_current()
    context.max_errored_blocks = -1
    # The newer reader starts 32 processes to read the footer of our one file, for each dataset: 5 s on 2 cores.
    context.use_datasource_v2 = False
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Drops what native code writes to the terminal."""
    kept, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)


def _add(ray: Any, dataset: Any, stage: Stage, scratch: Path) -> Any:
    """The dataset with one more stage. Ray calls a worker by the name of what it runs: that of the stage."""
    common: dict[str, Any] = {"batch_size": stage.batch_size, "num_cpus": stage.num_cpus, "zero_copy_batch": True}
    if stage.num_gpus:
        common["num_gpus"] = stage.num_gpus
    if stage.resource:
        common["resources"] = {stage.resource: RESOURCE_SHARE}
    if not stage.resident:
        return dataset.map_batches(_task(stage, scratch), **common, **TASK_OPTIONS)
    pool = ray.data.ActorPoolStrategy(size=stage.workers)
    resident = type(stage.name, (_Resident,), {})
    if stage.workers > 1:
        common["scheduling_strategy"] = "SPREAD"
    return dataset.map_batches(resident, fn_constructor_args=(stage, scratch), compute=pool, **common, **ACTOR_OPTIONS)


def _task(stage: Stage, scratch: Path) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A short task's work."""

    def work(batch: dict[str, Any]) -> dict[str, Any]:
        return _call(stage, scratch, batch)

    work.__name__ = stage.name
    return work


class _Resident:
    """A worker that stays: it keeps its stage, and with it whatever the stage loaded."""

    def __init__(self, stage: Stage, scratch: Path) -> None:
        self.stage, self.scratch = stage, scratch

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Batches of pickled records to the same."""
        return _call(self.stage, self.scratch, batch)


def _call(stage: Stage, scratch: Path, batch: dict[str, Any]) -> dict[str, Any]:
    """Runs a stage on a batch inside a Ray worker. A bug is written down before it is raised: Ray drops it."""
    logs.in_worker()
    records = [_load(blob) for blob in batch["record"]]
    try:
        done = _attempt_watched(stage, records, scratch)
    except Exception:
        (scratch / f"bug-{uuid.uuid4().hex}.txt").write_text(traceback.format_exc())
        raise
    _tell_failures(stage, done)
    return {"record": np.array([*map(_dump, done), None], dtype=object)[:-1]}


def _tell_failures(stage: Stage, done: list[Any]) -> None:
    """Says to a worker's log what failed in its stage: there one sees what else happened then."""
    for failed in done:
        if isinstance(failed, Failed) and failed.stage == stage.name:
            uri = getattr(failed.record, "uri", None)
            told = logs.fields(uri=uri, kind=failed.kind, stage=failed.stage)
            logs.logger("worker").info("failed: %s", failed.error, extra=told)


def _attempt_watched(stage: Stage, records: list[Any], scratch: Path) -> list[Any]:
    """`attempt` with the stage's deadline, in a process that may die of it."""
    sound = [record for record in records if not isinstance(record, Failed)]
    if stage.deadline_s is None or not sound:
        return attempt(stage, records)
    (record,) = sound
    case = (scratch, stage.name, record, stage.deadline_s(record))
    if (failed := walls.timed_out(*case)) is not None:
        return [failed]
    with walls.watched(*case):
        return attempt(stage, records)


def _raise_bugs(scratch: Path) -> None:
    """Raises the first bug that a worker wrote down."""
    for file in scratch.glob("bug-*.txt"):
        text = file.read_text()
        raise EngineError(f"a worker failed in a way no bad file explains: {text.strip().splitlines()[-1]}\n{text}")


def _dump(record: Any) -> bytes:
    return pickle.dumps(record, protocol=pickle.HIGHEST_PROTOCOL)


def _load(blob: bytes) -> Any:
    return pickle.loads(blob)  # noqa: S301  # our own records, from a folder only this run can write


ENGINES: dict[str, Callable[[list[Stage], Iterable[Any], Path], Iterator[Any]]] = {"local": _run_local, "ray": _run_ray}
