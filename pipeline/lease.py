"""One indexer at a time: who writes an archive holds its lease, says so again and again, and is fenced off when not.

The lease is one value in the properties of a Delta table without rows. Delta refuses a commit that changes properties
which somebody else changed since they were read: that is compare-and-swap, wherever a Delta log can be written. On a
file system it rests on creating a file that must not exist, on object stores on conditional puts. Lock files would
need O_EXCL, which object stores have not, and would outlive a kill; this value expires.

A holder that is alive renews the value every `HEARTBEAT_S`. Who finds it older than `EXPIRY_S`, or finds on its own
machine that the process is gone, takes over at once. Clocks of machines that share an archive must agree to well
within `EXPIRY_S`; if they do not, a run may be robbed of its lease, and nothing worse: each lease has a number, its
term, higher than all before; every commit carries it, and Delta refuses one with a lower term than the last. Who takes
over a lease that was not given back puts its term into the tables before anything else (`Archive.fence`). A process
that slept through its expiry can therefore wake up, in the midst of a commit even, and do no harm.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from pipeline import logs, stores
from pipeline.archive import Archive
from pipeline.stores import AnyPath
from schemas.errors import ArchiveBusy, FootageError, LeaseLost

HEARTBEAT_S = 10.0
EXPIRY_S = 60.0  # six beats: a slow disk or a busy machine is not death
POLL_S = 0.5

PROPERTY = "footage.lease"
# The log of the table is nothing but heartbeats: only its end is kept.
CONFIGURATION = {"delta.checkpointInterval": "50", "delta.logRetentionDuration": "interval 10 minutes"}
SCHEMA = pa.schema([("nothing", pa.string())])
LINUX_MACHINE = ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid")

logger = logs.logger("lease")


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease, or held it: `run_id` is None once it was given back. Times are seconds since 1970."""

    term: int
    run_id: str | None
    host: str
    machine: str  # where `pid` means something: a boot of a machine, and a space of process ids on it
    pid: int
    started: str  # when the process started, in the machine's own words: pids are used again
    since_s: float
    beat_s: float

    def is_alive(self, now_s: float) -> bool:
        """Whether the lease is held, and must be respected."""
        if self.run_id is None or abs(now_s - self.beat_s) > EXPIRY_S:
            return False
        return self.machine != _machine() or _started(self.pid) == self.started


class Lease:
    """A lease that this process holds."""

    def __init__(self, table: DeltaTable, holder: Holder, *, took_over: bool) -> None:
        self.took_over = took_over  # from one that did not give it back, and may not know yet
        self._table = table
        self._holder = holder
        self._lock = threading.Lock()  # of the two above: the heart beats in a thread of its own
        self._ended = threading.Event()
        self._is_lost = False

    @property
    def term(self) -> int:
        """The number of this lease, higher than all before."""
        return self._holder.term

    def check(self) -> None:
        """Raises LeaseLost when somebody else has taken over. To be called before anything is committed."""
        if time.time() - self._holder.beat_s > EXPIRY_S:  # this machine was asleep, or the disk was away
            self.renew()
        if self._is_lost:
            raise LeaseLost(
                f"run {self._holder.run_id} gave no sign of life for {EXPIRY_S:.0f} s and another run took over the "
                "archive; nothing is lost: run the same command again when that has ended"
            )

    def renew(self) -> None:
        """Says that the holder is alive, or finds out that it is the holder no more."""
        with self._lock:
            beat = replace(self._holder, beat_s=time.time())
            try:
                _write(self._table, beat)
            except DeltaError:
                self._table = _opened(self._table.table_uri)
                found = _read(self._table)
                self._is_lost = found is None or found.term != self._holder.term
                if not self._is_lost:  # it was no rival: the disk, the network
                    raise
            else:
                self._holder = beat

    def _beat(self) -> None:
        """The heart: renews until the lease ends."""
        while not (self._ended.wait(HEARTBEAT_S) or self._is_lost):
            try:
                self.renew()
            except (DeltaError, OSError) as error:  # the next beat may come through; if none does, the lease expires
                logger.warning("the lease could not be renewed: %s", error)

    def release(self) -> None:
        """Gives the lease back. That it cannot is no matter: it will expire."""
        self._ended.set()
        with self._lock, suppress(DeltaError, OSError):
            if not self._is_lost:
                _write(self._table, replace(self._holder, run_id=None))


@contextmanager
def held(
    folder: str | AnyPath, run_id: str, *, wait_s: float = 0.0, watch: Callable[[float], None] | None = None
) -> Iterator[Lease]:
    """Holds the lease of the archive at `folder`, for which it waits up to `wait_s`; `watch` learns how long it waits.

    Raises ArchiveBusy, which says who holds it. An error of the work done meanwhile becomes LeaseLost where another has
    taken over: who swept away what this one had not committed explains a file that is not there.
    """
    lease = acquire(folder, run_id, wait_s=wait_s, watch=watch or (lambda _: None))
    archive = Archive(folder, lease.term)
    if lease.took_over and archive.exists():
        archive.fence()  # should this fail, the lease is not given back: whoever comes next must do it
    threading.Thread(target=lease._beat, name="lease", daemon=True).start()  # noqa: SLF001  # its own heart
    try:
        yield lease
    except (FootageError, OSError, DeltaError):
        with suppress(OSError, DeltaError):
            lease.check()
        raise
    finally:
        lease.release()


def acquire(folder: str | AnyPath, run_id: str, *, wait_s: float, watch: Callable[[float], None]) -> Lease:
    """Takes the lease; without a heart, it expires after `EXPIRY_S`."""
    began = time.monotonic()
    while True:
        table, now_s = _table(folder), time.time()
        found = _read(table)
        if found is None or not found.is_alive(now_s):
            holder = _holder(run_id, found.term if found else 0, now_s)
            if _is_first(table, holder):
                return Lease(table, holder, took_over=found is not None and found.run_id is not None)
            continue  # who was faster is alive
        waited_s = time.monotonic() - began
        if waited_s >= wait_s:
            raise ArchiveBusy(_sentence(folder, found, now_s))
        watch(waited_s)
        time.sleep(min(POLL_S, wait_s - waited_s))


def _is_first(table: DeltaTable, holder: Holder) -> bool:
    """Tries to be the holder; False when somebody else was faster."""
    version = table.version()
    try:
        _write(table, holder)
    except (DeltaError, OSError):  # the second when who was faster has tidied, and our draft with it
        if _opened(table.table_uri).version() == version:  # there was nobody: the disk, the network
            raise
        return False
    return True


def holder_of(folder: str | AnyPath) -> Holder | None:
    """Who holds the lease of an archive now; None when nobody does."""
    path = _path(folder)
    found = _read(_opened(path)) if DeltaTable.is_deltatable(path, stores.delta_options(folder)) else None
    return found if found is not None and found.is_alive(time.time()) else None


def tidy(folder: str | AnyPath) -> None:
    """Sums the log of the lease up and deletes the heartbeats before, but for those of the last minutes.

    Takes no lease and disturbs none: nothing is committed, and who holds it reads no more than the end of the log.
    """
    path = _path(folder)
    if DeltaTable.is_deltatable(path, stores.delta_options(folder)):
        table = _opened(path)
        table.create_checkpoint()
        table.cleanup_metadata()


def _sentence(folder: str | AnyPath, holder: Holder, now_s: float) -> str:
    """Who holds a lease, and what to do."""
    since = datetime.fromtimestamp(holder.since_s, UTC).isoformat(" ", "seconds").removesuffix("+00:00")
    return (
        f"{folder} is being indexed by process {holder.pid} on {holder.host} since {since} UTC (run {holder.run_id}, "
        f"last sign of life {max(0.0, now_s - holder.beat_s):.0f} s ago); wait for it with --wait SECONDS, or stop it. "
        "Searching goes on meanwhile"
    )


# --- the value in the table


def _path(folder: str | AnyPath) -> str:
    """Where the table is."""
    return f"{folder}/lease"


def _table(folder: str | AnyPath) -> DeltaTable:
    """The lease's table, made if it is not there."""
    path = _path(folder)
    try:
        DeltaTable.create(
            path,
            schema=SCHEMA,
            mode="ignore",
            configuration=CONFIGURATION,
            storage_options=stores.delta_options(folder),
        )
    except DeltaError:  # somebody else is making it in this instant
        if not DeltaTable.is_deltatable(path, stores.delta_options(folder)):
            raise
    return _opened(path)


def _opened(path: str) -> DeltaTable:
    """The table at its last version."""
    return DeltaTable(path, storage_options=stores.delta_options(path))


def _read(table: DeltaTable) -> Holder | None:
    """The value at the table's loaded version."""
    value = table.metadata().configuration.get(PROPERTY)
    return Holder(**json.loads(value)) if value else None


def _write(table: DeltaTable, holder: Holder) -> None:
    """Puts the value in the place of the one loaded. Raises DeltaError if that is not the last any more."""
    table.alter.set_table_properties({PROPERTY: json.dumps(asdict(holder))}, raise_if_not_exists=False)


# --- this process


def _holder(run_id: str, last_term: int, now_s: float) -> Holder:
    """This process as a holder. Terms are milliseconds, so that they rise even if somebody removed the table."""
    pid = os.getpid()
    term = max(last_term + 1, int(now_s * 1000))
    return Holder(term, run_id, socket.gethostname(), _machine(), pid, _started(pid) or "", now_s, now_s)


def _machine() -> str:
    """A name for where this process's pid means something."""
    boot, space = LINUX_MACHINE
    try:
        return f"{Path(boot).read_text().strip()} {os.readlink(space)}"  # noqa: PTH115  # it points to no path
    except OSError:  # not Linux: names must do
        return socket.gethostname()


def _started(pid: int) -> str | None:
    """When a process of this machine started; "" where that cannot be known, None if there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else _signalled(pid)
    return None if fields[0] in "ZX" else fields[19]  # one that only waits to be reaped holds nothing


def _signalled(pid: int) -> str | None:
    """As `_started`, by asking whether a signal could be sent."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""
