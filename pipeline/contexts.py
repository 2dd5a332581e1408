"""Prompt contexts (z-bar) as bytes: what is stored with a clip so that the model's own score can be had later.

`int8` keeps a float32 scale per token before that token's values: 25 kB a clip for B/32 instead of 50 kB as float16.
The three codes differ in length, so bytes need no header.
"""

# P patch tokens, E joint dimension

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ArchiveError

Context = NDArray[np.float32]  # P x E


def _pack_int8(context_PE: Context) -> bytes:
    """P x E as P rows of one float32 scale and E int8 values."""
    scale_P1 = np.abs(context_PE).max(axis=1, keepdims=True).astype(np.float32) / 127
    divisor_P1 = np.where(scale_P1 > 0, scale_P1, 1)
    values_PE = np.rint(context_PE / divisor_P1).astype(np.int8)
    return np.hstack([scale_P1.view(np.int8), values_PE]).tobytes()


def _pack_float16(context_PE: Context) -> bytes:
    """P x E as float16."""
    return context_PE.astype(np.float16).tobytes()


PACKERS: dict[str, Callable[[Context], bytes]] = {
    "int8": _pack_int8,
    "float16": _pack_float16,
    "none": lambda _: b"",
}


def unpack(stored: bytes, patches: int, width: int) -> Context:
    """Bytes of any code back to P x E float32. Raises ArchiveError for a length that no code has."""
    if len(stored) == 2 * patches * width:
        return np.frombuffer(stored, np.float16).reshape(patches, width).astype(np.float32)
    if len(stored) == patches * (width + 4):
        rows = np.frombuffer(stored, np.int8).reshape(patches, width + 4)
        return rows[:, 4:].astype(np.float32) * np.ascontiguousarray(rows[:, :4]).view(np.float32)
    raise ArchiveError(
        f"a stored context has {len(stored)} bytes; expected {2 * patches * width} or {patches * (width + 4)}"
    )
