"""What facts about a machine mean for footage: ok, slow or wrong, with a reason and what to do. Arithmetic and words.

*Slow* is what works with a loss: of time, or of something that is needed for some files or commands only. *Wrong* is
what a run fails by. Facts come from `probes` and `codecs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # what is judged may be that a library cannot be imported
    from pipeline.codecs import CodecState
    from pipeline.probes import Cores, Disk, Gpu, Speed

State = Literal["ok", "slow", "wrong"]
# What nearly all footage is in: without one of these a pile is left out. The others cost the files that have them.
ORDINARY = frozenset({"h264", "hevc", "mpeg4", "mjpeg", "vp9", "av1"})
LEAST_FREE_BYTES = 1_000_000_000  # 40,000 clips of a B/32 at 25 kB, or a session of Ray with its logs
FULL_FOR_RAY = 0.95  # of its disk: beyond this Ray refuses to put objects there
LEAST_MEMORY_BYTES = 4 << 30  # what one decode may take; torch and Ray with its processes come beside it
# Ray starts without /dev/shm of this size and then keeps its objects in files, or in some cases not at all.
LEAST_SHARED_BYTES = 1 << 30
LEAST_OPEN_FILES = 4096  # below it Ray warns, and servers of it lose connections
SOCKET_PATH = 107  # bytes, of a socket's path on Linux
RAY_SOCKET = len("/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")
CLIP_GMAC = 35.8  # to index a clip with xclip-base-patch32; `footage models` has all


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: what was found, and in a sentence or two what it means and what to do."""

    name: str
    state: State
    found: str
    meaning: str


# --- software


def libraries(required: Mapping[str, str], found: Mapping[str, str | None]) -> Check:
    """The libraries that footage asks for, by their least versions."""
    said = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    if not required:
        return Check(
            "libraries", "slow", said, "footage is run without being installed: pip install . says what it needs"
        )
    missing = [name for name in required if not found.get(name)]
    old = [name for name, least in required.items() if (has := found.get(name)) and _numbers(has) < _numbers(least)]
    if missing or old:
        wants = ", ".join(f"{name}>={required[name]}" for name in (*missing, *old))
        return Check("libraries", "wrong", said, f"missing or too old; run: pip install '{wants}'".replace(", ", "' '"))
    return Check("libraries", "ok", said, "all that footage asks for is there")


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with."""
    parts = version.partition("+")[0].split(".")
    return tuple(int(part) for part in parts if part.isdigit())


def codecs(states: Sequence[CodecState]) -> Check:
    """What FFmpeg decodes here."""
    missing = [state for state in states if state.state == "missing"]
    found = "decoded: " + ", ".join(state.codec for state in states if state.state == "decodes")
    if listed := [state.codec for state in states if state.state == "listed"]:
        found += f"; known, not tried: {', '.join(listed)}"
    if not missing:
        return Check("codecs", "ok", found, "frames came out of a small file of each, or FFmpeg knows the codec")
    named = ", ".join(f"{state.codec} ({state.why})" if state.why else state.codec for state in missing)
    is_wrong = bool(ORDINARY & {state.codec for state in missing})
    why = f"videos in {named} end as failures; install PyAV from its own wheel: pip install --force-reinstall av"
    return Check("codecs", "wrong" if is_wrong else "slow", found, why)


# --- devices


def devices(gpus: Sequence[Gpu], driver: str | None, cuda: str | None) -> Check:
    """CUDA devices, and why there are none."""
    if gpus:
        found = ", ".join(f"{gpu.name}, {_gb(gpu.free_bytes)} of {_gb(gpu.total_bytes)} free" for gpu in gpus)
        if any(gpu.free_bytes < LEAST_FREE_BYTES for gpu in gpus):
            return Check(
                "GPU", "slow", found, "a device is nearly full: end what holds its memory (nvidia-smi lists it)"
            )
        return Check("GPU", "ok", f"{found}; driver {driver or 'unknown'}, CUDA {cuda}", "clips are encoded there")
    if driver is None:
        why = "clips are encoded on the CPU, which is slower by far for all but footage-tiny; see the line on encoding"
        return Check("GPU", "slow", "no NVIDIA driver is loaded", why)
    if cuda is None:
        why = (
            "there may be a GPU, and this torch cannot use one; install another build: https://pytorch.org/get-started"
        )
        return Check("GPU", "wrong", f"driver {driver}; torch without CUDA", why)
    why = f"the driver may be too old for CUDA {cuda}, or no device is passed in (docker run --gpus all)"
    return Check("GPU", "wrong", f"driver {driver}; no device that torch can use", why)


def nvdec(kinds: Sequence[str], *, has_gpu: bool, refusal: str | None) -> Check:
    """Decoding on a GPU."""
    if not has_gpu:
        why = "without a CUDA device all decoding is the CPU's; nothing is to be done"
        return Check("NVDEC", "ok", f"FFmpeg could use: {', '.join(kinds) or 'none'}", why)
    if refusal is not None:
        why = f"the GPU does not decode ({refusal}); in a container NVIDIA_DRIVER_CAPABILITIES must have `video`"
        return Check("NVDEC", "slow", "refused a small H.264 file", why)
    return Check("NVDEC", "ok", "decoded a small H.264 file", "runs use it for codecs where it is faster")


def encoding(speed: Speed, threads: int) -> Check:
    """How fast the arithmetic of a model is, and in what; a bound, for nothing but products is counted."""
    taken = speed.int8 or (speed.bfloat16 if speed.takes_short else speed.float32)
    where = f"a thread of {speed.where}" if speed.where == "cpu" else speed.where
    found = f"{where}: {speed.float32:.0f} GMAC/s in float32, {speed.bfloat16:.0f} in bfloat16"
    found += f", {speed.int8:.0f} in bytes" if speed.int8 else ""
    found += f"; so at most {taken * threads / CLIP_GMAC:.3g} clips/s of xclip-base-patch32 on all"
    if speed.int8:
        why = "bytes are fastest here: X-CLIP models at least 512 wide are encoded in them if their clips keep near"
        return Check("encoding", "ok", found, why)
    if not speed.takes_short:
        why = "bfloat16 gains too little here: clips are encoded in float32, which takes about twice the time"
        return Check("encoding", "slow", found, f"{why}; a smaller model, or a GPU that has bfloat16, is what helps")
    if speed.where == "cpu" and not speed.packs:
        why = "bfloat16 is faster here, but this torch cannot lay weights out beforehand"
        return Check("encoding", "slow", found, f"{why}: 7 % was measured; another version of torch may")
    return Check("encoding", "ok", found, "bfloat16 is faster here and is what clips are encoded in")


def cores(found: Cores) -> Check:
    """Whether footage, which counts the machine's CPUs, has them."""
    said = f"{found.machine} CPUs, {found.allowed} allowed"
    has = min(found.allowed, found.machine if found.quota is None else found.quota)
    said += "" if found.quota is None else f", {found.quota:g} by the cgroup's limit"
    if has < found.machine:
        why = (
            f"runs start workers for {found.machine} CPUs, which share {has:g}: more memory, and no more speed. "
            f"Start Ray yourself (ray start --head --num-cpus={max(1, round(has))}) and set RAY_ADDRESS=auto"
        )
        return Check("cores", "slow", said, why)
    if has < 2:
        return Check("cores", "slow", said, "decoding and encoding share one core; each more is a gain")
    return Check("cores", "ok", said, "all of them decode and encode")


# --- room


def memory(available_bytes: int) -> Check:
    """Memory that is left."""
    found = f"{_gb(available_bytes)} available"
    if available_bytes < LEAST_MEMORY_BYTES:
        why = "a decode may take 4 GB, and torch and Ray come beside it: large videos may fail as `memory` or `killed`"
        return Check("memory", "slow", found, f"{why}; end other programs, or use --engine local for small piles")
    return Check(
        "memory", "ok", found, "enough for a run of the embedded model; larger ones take what `footage models` says"
    )


def archive_disk(found: Disk, *, writable: bool) -> Check:
    """Room where the archive is, or would be."""
    said = f"{_gb(found.free_bytes)} of {_gb(found.total_bytes)} free for {found.folder}"
    if not writable:
        return Check(
            "archive's disk", "wrong", said, "the folder may not be written to: searching works, indexing fails"
        )
    if found.free_bytes < LEAST_FREE_BYTES:
        why = "a run would soon end for lack of room (nothing committed is lost); make room, or `footage compact`"
        return Check("archive's disk", "wrong", said, why)
    return Check("archive's disk", "ok", said, "a clip takes some 5 to 100 kB, by the model (`footage models`)")


def temporary_disk(found: Disk, *, writable: bool) -> Check:
    """Room for Ray's sessions and for temporary files."""
    said = f"{_gb(found.free_bytes)} of {_gb(found.total_bytes)} free for {found.folder}"
    advice = "set TMPDIR to a folder with room"
    if not writable or found.free_bytes < LEAST_FREE_BYTES:
        return Check("temporary disk", "wrong", said, f"Ray and large tables need room here; make some, or {advice}")
    if len(str(found.folder)) + RAY_SOCKET > SOCKET_PATH:
        return Check(
            "temporary disk", "wrong", said, f"its path is too long for Ray's sockets; {advice} and a short path"
        )
    if found.free_bytes < (1 - FULL_FOR_RAY) * found.total_bytes:
        why = f"over {100 * FULL_FOR_RAY:.0f} % of the disk is used, and Ray puts no objects on such a disk"
        return Check("temporary disk", "slow", said, f"{why}: large runs may stop; make room, or {advice}")
    return Check("temporary disk", "ok", said, "Ray's sessions and temporary files have room")


def shared_memory(found: Disk | None) -> Check:
    """Memory that processes share, in which Ray's workers hand each other frames."""
    if found is None:
        return Check("shared memory", "ok", "not there", "Ray keeps its objects in temporary files on this system")
    said = f"{_gb(found.free_bytes)} free"
    if found.free_bytes < LEAST_SHARED_BYTES:
        why = "Ray keeps its objects in files instead, which is slower; in Docker: docker run --shm-size=4g"
        return Check("shared memory", "slow", said, why)
    return Check("shared memory", "ok", said, "Ray's workers hand frames to each other in memory")


def open_files(limit: int | None) -> Check:
    """How many files a process may have open."""
    found = "no limit" if limit is None else f"{limit} at most"
    if limit is not None and limit < LEAST_OPEN_FILES:
        return Check(
            "open files", "slow", found, f"Ray wants {LEAST_OPEN_FILES} or more; raise it with: ulimit -Hn 65536"
        )
    return Check("open files", "ok", found, "enough for Ray's processes")


def port(number: int, listener: str | None) -> Check:
    """Whether `footage serve` would find its port."""
    if listener is None:
        return Check(f"port {number}", "ok", "free", "`footage serve` can listen there")
    if listener == "footage serve":
        return Check(f"port {number}", "ok", listener, "a server of footage is up; a second one needs --port")
    return Check(
        f"port {number}", "slow", listener, "`footage serve` needs another port: --port 0 takes one that is free"
    )


def model_cache(folder: Path, names: Sequence[str], size_bytes: int, *, writable: bool, offline: bool) -> Check:
    """Where fetched models lie."""
    held = f"{', '.join(names)} ({_gb(size_bytes)})" if names else "no released model"
    found = f"{folder}: {held}"
    if not names and (offline or not writable):
        why = "no model can be fetched (HF_HUB_OFFLINE is set)" if offline else "the folder may not be written to"
        advice = "footage-tiny is always there; for others see docs/models.md, or set HF_HOME"
        return Check("model cache", "slow", found, f"{why}; {advice}")
    return Check(
        "model cache", "ok", found, "footage-tiny is always there, others are fetched once when they are named"
    )


def _gb(size_bytes: float) -> str:
    """Bytes for people."""
    return f"{size_bytes / 1e9:.1f} GB"
