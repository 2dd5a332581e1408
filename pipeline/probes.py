"""What this machine has, found out by looking: facts for `checks` to judge, and no opinion of them.

Nothing is changed but a temporary folder. What imports heavily does so inside, so that a library which is broken or
missing is one fact among others. (Of codecs: `codecs`.)
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.stores import AnyPath

CGROUPS = Path("/sys/fs/cgroup")
# Limit and use of memory, and what of it was read of files and makes way, by versions 2 and 1 of cgroups.
MEMORY_FILES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)
MEMORY = Path("/proc/meminfo")
DRIVER = Path("/proc/driver/nvidia/version")
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # where Ray keeps its objects
UNBOUNDED_BYTES = 1 << 60  # what cgroups v1 write for no limit is a little less than 2^63
REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*>=\s*([0-9.]+)\s*$")
ON_SYSTEM = re.compile(r"""sys_platform (==|!=) ["'](\w+)["']""")
ANSWER_S = 1.0  # of a server of ours on this machine


@dataclass(frozen=True, slots=True)
class Disk:
    """A folder that is there, or would be, and the disk it is on. Bytes are of the whole disk."""

    folder: Path
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """A CUDA device as torch has it."""

    name: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Cores:
    """CPUs of the machine, those that this process may run on, and what a cgroup lets it use of them (None: all)."""

    machine: int
    allowed: int
    quota: float | None


@dataclass(frozen=True, slots=True)
class Speed:
    """Giga multiplications with addition a second: of one CPU thread, or of a device."""

    where: str
    float32: float
    bfloat16: float
    packs: bool  # whether weights can be laid out beforehand for bfloat16
    takes_short: bool  # whether clips are encoded in bfloat16, if not in bytes
    int8: float | None = None  # in bytes; None where that is not quicker


def requirements() -> dict[str, str]:
    """The least version of each library that footage says it needs, as it was installed."""
    try:
        asked = [line.partition(";") for line in metadata.requires("footage") or ()]
    except metadata.PackageNotFoundError:  # run from a folder that was never installed
        return {}
    plain = (REQUIREMENT.match(name.strip()) for name, _, marker in asked if _holds(marker))
    return {found[1]: found[2] for found in plain if found}


def _holds(marker: str) -> bool:
    """Whether a requirement is one of this system, of those kinds of conditions that we write."""
    if "extra" in marker:
        return False
    found = ON_SYSTEM.search(marker)
    return found is None or (sys.platform == found[2]) == (found[1] == "==")


def installed(name: str) -> str | None:
    """The version of a library; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def gpus() -> tuple[Gpu, ...]:
    """The CUDA devices that torch can use."""
    import torch

    if not torch.cuda.is_available():
        return ()
    numbers = range(torch.cuda.device_count())
    return tuple(Gpu(torch.cuda.get_device_name(number), *torch.cuda.mem_get_info(number)) for number in numbers)


def driver() -> str | None:
    """NVIDIA's driver, by its own first line; None where none is loaded."""
    try:
        return DRIVER.read_text().splitlines()[0].removeprefix("NVRM version:").strip()
    except OSError:
        return None


def cuda_of_torch() -> str | None:
    """The CUDA that torch was built for; None for a build without."""
    import torch

    version: str | None = torch.version.cuda
    return version


def speed(device: str) -> Speed:
    """How fast products of a layer's size are; on a CPU by one thread, as each pass of the encoder is."""
    import torch

    from xclip_core import fast, quantised

    timed = cache(fast.product_s)  # figures and verdict are of the same times
    plain, short = (fast.product_macs(device) / timed(device, dtype) / 1e9 for dtype in (torch.float32, torch.bfloat16))
    dtype = fast.faster_dtype(device, timed)
    takes_short = dtype == torch.bfloat16
    gain = quantised.gain(dtype) if device == "cpu" else 0.0
    int8 = gain * (short if takes_short else plain) if gain > quantised.WORTH_IT else None
    return Speed(device, plain, short, fast.packs(torch.device(device), torch.bfloat16), takes_short, int8)


def cores() -> Cores:
    """CPUs, and what there may be of them."""
    machine = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine
    return Cores(machine, allowed, _cpu_quota())


def _cpu_quota() -> float | None:
    """CPUs' worth of time that the cgroup may use; None for no limit. Version 2 first, then 1."""
    with_limit = _words(CGROUPS / "cpu.max") or [
        *_words(CGROUPS / "cpu" / "cpu.cfs_quota_us"),
        *_words(CGROUPS / "cpu" / "cpu.cfs_period_us"),
    ]
    if len(with_limit) != 2 or with_limit[0] in {"max", "-1"}:
        return None
    return int(with_limit[0]) / int(with_limit[1])


def memory_bytes() -> int:
    """Memory that this process may come to use: free or reclaimable, and no more than its cgroup leaves."""
    limits = [UNBOUNDED_BYTES]
    for limit, used, stat, idle in MEMORY_FILES:
        numbers = [int(word) for file in (limit, used) for word in _words(CGROUPS / file) if word.isdigit()]
        counts = _words(CGROUPS / stat)
        reclaimable = int(counts[counts.index(idle) + 1]) if idle in counts else 0
        limits += [numbers[0] - numbers[1] + reclaimable] if len(numbers) == 2 else []
    lines = (line.split() for line in MEMORY.read_text().splitlines()) if MEMORY.exists() else ()
    limits += [int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:"]
    return min(limits)


def _words(file: Path) -> list[str]:
    """What a file of the kernel says; nothing where there is none."""
    try:
        return file.read_text().split()
    except OSError:
        return []


def disk(folder: Path) -> Disk:
    """The disk of a folder, which may be still to be made."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    usage = shutil.disk_usage(there)
    return Disk(folder, usage.free, usage.total)


def temporary() -> Path:
    """Where Ray keeps its sessions, and everything else its temporary files."""
    return Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())


def is_writable(folder: AnyPath) -> bool:
    """Whether files can be made in a folder, or in the one in which it would be made."""
    if not isinstance(folder, Path):
        return True
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return os.access(there, os.W_OK)


def open_files() -> int | None:
    """How many files a process may have open, once Ray has asked for as many as it can get; None for no limit."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if hard == resource.RLIM_INFINITY else hard


def listener(port: int) -> str | None:
    """Who listens at a port of this machine: `footage serve`, or another program; None for nobody."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return "footage serve" if _is_ours(port) else "another program"
    return None


def _is_ours(port: int) -> bool:
    """Whether what listens is a server of ours."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=ANSWER_S) as answer:
            return b"footage_" in answer.read(1 << 20)
    except urllib.error.HTTPError as error:
        return error.code == 401 and "problem+json" in error.headers.get("content-type", "")
    except (OSError, ValueError):
        return False


def ray_start_s() -> tuple[float, str]:
    """Seconds that it takes to join or start Ray, and what it has. Raises EngineError where it cannot be started."""
    from pipeline import engine

    began = time.perf_counter()
    machines = engine.machines("ray")
    has = f"{machines.cpus} CPUs and {machines.gpus} GPUs on {machines.nodes} machines"
    return time.perf_counter() - began, has
