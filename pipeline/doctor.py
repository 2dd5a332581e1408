"""Looks this machine over for footage, and an archive if one is named: what works, what is slow and why, what is wrong.

Every check is made even where others fail: a library that cannot be loaded is a finding like any other.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline import checks, probes
from pipeline.checks import Check
from pipeline.versions import LIBRARIES
from schemas.errors import FootageError, first_line

PORT = 8080  # that `footage serve` takes unless told
# What a broken library, driver or system raises when it is asked.
TROUBLES = (ImportError, OSError, RuntimeError, AttributeError, FootageError)


def examine(archive: str | None = None, *, deep: bool = False) -> Iterator[Check]:
    """Each check as it is made. `deep` starts Ray, which takes some seconds. An archive in a store has no disk."""
    looks: dict[str, Callable[[], Check]] = {
        "python": _python,
        "libraries": _libraries,
        "FFmpeg": _ffmpeg,
        "codecs": _codecs,
        "GPU": _devices,
        "NVDEC": _nvdec,
        "encoding": _encoding,
        "cores": lambda: checks.cores(probes.cores()),
        "memory": lambda: checks.memory(probes.memory_bytes()),
        "archive's disk": lambda: _archive_disk(archive or "."),
        "temporary disk": _temporary_disk,
        "shared memory": _shared_memory,
        "open files": lambda: checks.open_files(probes.open_files()),
        f"port {PORT}": lambda: checks.port(PORT, probes.listener(PORT)),
        "model cache": _model_cache,
        "Ray": _deep_ray if deep else _ray,
    }
    if archive is not None:
        looks |= {"archive": lambda: _archive(archive), "archive's model": lambda: _archive_model(archive)}
    for name, look in looks.items():
        yield _made(name, look)


def _made(name: str, look: Callable[[], Check]) -> Check:
    """A check, or what kept it from being made."""
    try:
        return look()
    except TROUBLES as error:
        said = first_line(error)
        return Check(
            name, "wrong", f"{type(error).__name__}: {said}", "this could not even be looked at; mend that first"
        )


def _python() -> Check:
    return Check("python", "ok", f"{platform.python_version()} on {platform.platform()}", "the one that runs footage")


def _libraries() -> Check:
    required = probes.requirements()
    names = dict.fromkeys(("footage", *required, *LIBRARIES))
    found = {name: probes.installed(name) for name in names}
    return checks.libraries(required, found)


def _ffmpeg() -> Check:
    from pipeline import decode

    found = decode.library_versions()
    return Check("FFmpeg", "ok", f"libavcodec {found['libavcodec']}, libavformat {found['libavformat']}", "inside PyAV")


def _codecs() -> Check:
    from pipeline import codecs

    return checks.codecs(codecs.codec_states())


def _devices() -> Check:
    return checks.devices(probes.gpus(), probes.driver(), probes.cuda_of_torch())


def _nvdec() -> Check:
    from pipeline import codecs

    if not probes.gpus():
        return checks.nvdec(codecs.device_kinds(), has_gpu=False, refusal=None)
    with tempfile.TemporaryDirectory(prefix="footage-") as folder:
        refusal = codecs.nvdec_refusal("cuda", Path(folder))
    return checks.nvdec(codecs.device_kinds(), has_gpu=True, refusal=refusal)


def _encoding() -> Check:
    has_gpu = bool(probes.gpus())
    return checks.encoding(probes.speed("cuda" if has_gpu else "cpu"), 1 if has_gpu else probes.cores().allowed)


def _archive_disk(archive: str) -> Check:
    from pipeline.stores import to_place

    place = to_place(archive)
    if not isinstance(place, Path):
        return Check("archive's disk", "ok", f"{place} is in a store", "a store has no end; its bill has")
    return checks.archive_disk(probes.disk(place), writable=probes.is_writable(place))


def _temporary_disk() -> Check:
    folder = probes.temporary()
    return checks.temporary_disk(probes.disk(folder), writable=probes.is_writable(folder))


def _shared_memory() -> Check:
    folder = probes.SHARED_MEMORY
    return checks.shared_memory(probes.disk(folder) if folder.is_dir() else None)


def _model_cache() -> Check:
    from xclip_core import download, released

    files = {name: file for name in released.RELEASED if (file := download.cached(name))}
    folder = download.cache_folder()
    return checks.model_cache(
        folder,
        list(files),
        sum(file.stat().st_size for file in files.values()),
        writable=probes.is_writable(folder),
        offline=download.is_offline(),
    )


def _ray() -> Check:
    address = os.environ.get("RAY_ADDRESS")
    found = (
        f"RAY_ADDRESS={address}: runs join that cluster" if address else "RAY_ADDRESS is not set: runs start their own"
    )
    return Check("Ray", "ok", f"{found}; not started", "--deep starts it, to see that it can be")


def _deep_ray() -> Check:
    took_s, has = probes.ray_start_s()
    return Check("Ray", "ok", f"there after {took_s:.1f} s, with {has}", "runs can use it")


def _archive(place: str) -> Check:
    from pipeline.overview import overview

    found = overview(place)
    last = found.runs[0]
    said = f"{sum(found.videos.values())} videos, {found.clips} clips; last run {last.run_id}: {last.state}"
    failed = found.videos.get("failed", 0)
    if failed:
        why = "some videos could not be indexed: `footage failures` says why"
        return Check("archive", "slow", said, why)
    return Check("archive", "ok", said, "its tables open; `footage verify` looks at every file")


def _archive_model(place: str) -> Check:
    from pipeline import serving

    opened = serving.open_space(place)
    notes = "; ".join(opened.notes) or "the one that made its vectors, here and loaded"
    source = opened.model.provenance.source if opened.model.provenance else "unknown"
    return Check("archive's model", "ok", source, notes)
