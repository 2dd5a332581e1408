"""Sets of ids as 64-bit numbers, eight bytes each, that whole batches of rows are looked up in.

Arrow would build its own table of all the texts of a set for every batch, which over a large archive takes hours.
"""

# N rows, K numbers of a set

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

Numbers = NDArray[np.uint64]

# The golden ratio as a fraction of 2^64: ids are hashes, so that a video at such a distance from another is no likelier
# than two videos of one id.
REVISION_STEP = np.uint64(0x9E3779B97F4A7C15)


HEX_DIGITS, NO_DIGIT = 16, 255
_NIBBLES = np.full(256, NO_DIGIT, np.uint8)
_NIBBLES[list(b"0123456789abcdef")] = range(16)


class Keys:
    """A set of numbers."""

    def __init__(self, lots: Iterable[Numbers]) -> None:
        self._sorted_K = np.unique(np.concatenate([np.zeros(0, np.uint64), *lots]))

    def __len__(self) -> int:
        return len(self._sorted_K)

    def __or__(self, other: Keys) -> Keys:
        return Keys([self._sorted_K, other._sorted_K])

    def has(self, numbers_N: Numbers) -> pa.BooleanArray:
        """Which of some numbers are in the set."""
        if not len(self):
            return pa.array(np.zeros(len(numbers_N), np.bool_))
        place_N = np.minimum(np.searchsorted(self._sorted_K, numbers_N), len(self) - 1)
        return pa.array(self._sorted_K[place_N] == numbers_N)


def of_ids(ids: Any) -> Numbers:
    """Numbers of a column of ids, which are sixteen hex digits. Raises ValueError for anything else."""
    digits = np.frombuffer(b"".join(ids.cast(pa.binary()).to_pylist()), np.uint8)
    if digits.size != HEX_DIGITS * len(ids) or (_NIBBLES[digits] == NO_DIGIT).any():
        raise ValueError(f"ids that are not of {HEX_DIGITS} hex digits each, among {len(ids)}")
    nibbles_ND = _NIBBLES[digits].reshape(-1, HEX_DIGITS)
    bytes_NB = np.ascontiguousarray(nibbles_ND[:, 0::2] << 4 | nibbles_ND[:, 1::2])
    return bytes_NB.view(">u8").astype(np.uint64).reshape(-1)


def to_id(number: Any) -> str:
    """A number as an id of sixteen hex digits."""
    return f"{int(number):0{HEX_DIGITS}x}"


def of_revisions(rows: Any) -> Numbers:
    """Numbers of rows (a batch or a table) that are equal for equal (`video_id`, `revision`)."""
    return of_pairs(of_ids(rows["video_id"]), rows["revision"])


def of_pairs(videos_N: Any, revisions: Any) -> Numbers:
    """The same of videos that are numbers already."""
    numbers_N: Numbers = np.asarray(videos_N, np.uint64) + revisions.to_numpy().astype(np.uint64) * REVISION_STEP
    return numbers_N


def of_texts(texts: list[str]) -> Numbers:
    """Numbers of any texts: 64 bits of their hash."""
    return np.fromiter((xxhash.xxh3_64_intdigest(text.encode()) for text in texts), np.uint64, len(texts))
