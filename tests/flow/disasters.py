"""The index job's stages with disasters in them: a file does to its worker what its name says. Ray's workers read this.

`decode-hang.mp4` hangs where it is decoded, and `inspect-segfault.mp4` crashes whoever inspects it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import decode, demux, plan, sources, survey
from pipeline.costs import Costs
from pipeline.settings import Sampling
from schemas.records import DecodedUnit, HashedFile, InspectedVideo, SourceFile, Unit
from tests.pipeline.stages import DEEDS

DEADLINE_S = 10.0  # no sound file of the tests takes a tenth of it, on however busy a machine
MEMORY_BYTES = 512 << 20
# Taken before anything is patched: what the driver patches, it must not find in here.
REAL_FINGERPRINT, REAL_INSPECT, REAL_DECODE = sources.fingerprint_files, demux.inspect_files, decode.decode_units


def fingerprint_files(files: list[SourceFile | HashedFile]) -> list[HashedFile]:
    """The stage `fingerprint`."""
    for file in files:
        _strike("fingerprint", (file.file if isinstance(file, HashedFile) else file).uri)
    return REAL_FINGERPRINT(files)


def inspect_files(settings: Sampling, costs: Costs, files: list[HashedFile]) -> list[InspectedVideo]:
    """The stage `inspect`."""
    for file in files:
        _strike("inspect", file.file.uri)
    return REAL_INSPECT(settings, costs, files)


def decode_units(image_size: int, units: list[Unit]) -> list[DecodedUnit]:
    """The stage `decode`."""
    for unit in units:
        _strike("decode", unit.uri)
    return REAL_DECODE(image_size, units)


def _strike(stage: str, uri: str) -> None:
    """Does what a file's name says, if it says so of this stage."""
    where, _, deed = Path(uri).stem.partition("-")
    if where == stage:
        DEEDS[deed]()


def to_read_s(_: SourceFile | HashedFile) -> float:
    """The deadline for reading and inspecting a file, which is worked out in the worker."""
    return DEADLINE_S


def strike(patch: pytest.MonkeyPatch) -> None:
    """Puts these stages in the place of the real ones, and walls so near that a test can wait for them.

    What workers run travels to them by name, and what they are given as values.
    """
    patch.setattr(plan, "DEADLINE_BASE_S", DEADLINE_S)
    patch.setattr(plan, "MEMORY_BYTES", MEMORY_BYTES)
    patch.setattr(survey, "_deadline_s", to_read_s)
    patch.setattr(sources, "fingerprint_files", fingerprint_files)
    patch.setattr(demux, "inspect_files", inspect_files)
    patch.setattr(decode, "decode_units", decode_units)
