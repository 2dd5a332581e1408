"""A small vocabulary for training, and what the other 49,000 words mean in the exported model.

Generated captions use a few hundred of CLIP's tokens. Training on just those rows keeps the optimiser out of a table
that is mostly idle. Row 0 stands for any other word: it is put into captions at random, so that the model learns to
read past it, and on export every token that training never showed gets its vector.
"""

# V all tokens, U used tokens, K texts, L tokens per text, W text width

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from xclip_core.tokenise import tokenise

# CLIP's "!", also the padding behind the end token. It is the lowest id, so it never passes for an end token.
UNKNOWN = 0
START, END = 49406, 49407  # CLIP's, around every text


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens in use, in ascending order, so that the end token keeps the largest id."""

    used_U: Tensor  # int64 ids in the full vocabulary; the first is UNKNOWN

    def __len__(self) -> int:
        return len(self.used_U)

    def tokenise(
        self, texts: Sequence[str], rng: np.random.Generator | None = None, *, unknown_rate: float = 0.1
    ) -> Tensor:
        """Texts to ids K x L within this vocabulary, zero padded; foreign tokens become UNKNOWN.

        With `rng`, a share `unknown_rate` of the texts gets an unknown word somewhere.
        """
        rows = [[START, *(token for word in text.split() for token in _word_ids(word)), END] for text in texts]
        for row in rows:
            if rng is not None and rng.random() < unknown_rate:
                row.insert(int(rng.integers(1, len(row))), UNKNOWN)
        full_KL = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
        for k, row in enumerate(rows):
            full_KL[k, : len(row)] = torch.tensor(row)
        own_KL = torch.searchsorted(self.used_U, full_KL)
        return torch.where(self.used_U[own_KL] == full_KL, own_KL, UNKNOWN)

    def expand(self, rows_UW: Tensor, vocab_size: int) -> Tensor:
        """The full token table V x W: trained rows where they belong, the unknown word's row everywhere else."""
        table_VW = rows_UW[UNKNOWN].repeat(vocab_size, 1)
        table_VW[self.used_U] = rows_UW
        return table_VW


def vocabulary_of(words: Iterable[str]) -> Vocabulary:
    """The vocabulary of all texts made of these words."""
    used = {token for word in words for token in _word_ids(word)}
    return Vocabulary(torch.tensor(sorted(used | {UNKNOWN, START, END})))


@lru_cache(maxsize=100_000)
def _word_ids(word: str) -> tuple[int, ...]:
    """A word's ids in CLIP's vocabulary. Byte-pair tokens never span words, so a text is its words in a row.

    Word by word a cached caption costs 10 us, against 700 us for a whole caption's clean-up and search for pairs.
    """
    return tuple(tokenise([word])[0, 1:-1].tolist())
