"""One of several parts of all videos, for machines that share a pile and know nothing of each other.

A video belongs to the part that the hash of its uri says, wherever and whenever that is asked: no list is kept, and new
videos are dealt out as evenly as old ones. A run of one part neither indexes nor retires what is another's.
"""

# N texts

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import keys
from pipeline.keys import Numbers
from schemas.errors import InputError

NAMED = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class Portion:
    """Part `number`, from 1, of `count`."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise InputError(f"there is no shard {self}; expected one from 1/{self.count} to {self.count}/{self.count}")

    @classmethod
    def named(cls, text: str) -> Portion:
        """`2/8` is the second of eight. Raises InputError for anything else."""
        found = NAMED.fullmatch(text.strip())
        if found is None or not int(found[2]):
            raise InputError(f"{text!r} names no shard; expected two numbers such as 1/8, of which the first is 1 to 8")
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def stored(cls, values: dict[str, Any] | None) -> Portion | None:
        """As a run wrote it down."""
        return cls(**values) if values else None

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def has_places(self, places_N: Numbers) -> NDArray[np.bool_]:
        """Which of N uris, by the numbers that `keys.of_texts` gives them, belong to the part."""
        is_ours_N: NDArray[np.bool_] = places_N % np.uint64(self.count) == np.uint64(self.number - 1)
        return is_ours_N

    def has(self, uri: str) -> bool:
        """Whether a video belongs to the part."""
        return bool(self.has_places(keys.of_texts([uri]))[0])
