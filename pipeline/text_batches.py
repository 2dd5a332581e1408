"""Texts of several queries through the model together, as if each had come alone."""

# K texts of all queries, E joint dimension

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from schemas.errors import FootageError
from xclip_core import Encoder, encode_text_raw

# A model and K texts to their raw vectors K x E, as `encode_text_raw` has them.
TextEncoder = Callable[[Encoder, Sequence[str]], Tensor]
Asked = tuple[Encoder, Sequence[str]]  # a query's model and texts; while a newer space is opened there are two models


def encoded_together(asked: Sequence[Asked]) -> list[Tensor | FootageError]:
    """Raw vectors K x E of each query's texts, in one pass for each model, or why there are none.

    The texts of one query that the model does not take are no other's concern.
    """
    found: dict[int, Tensor | FootageError] = {}
    models = {id(model): model for model, _ in asked}
    for key, model in models.items():
        places = [place for place, (other, _) in enumerate(asked) if id(other) == key]
        found |= zip(places, _of_model(model, [asked[place][1] for place in places]), strict=True)
    return [found[place] for place in range(len(asked))]


def _of_model(model: Encoder, queries: Sequence[Sequence[str]]) -> Sequence[Tensor | FootageError]:
    """The same of queries for one model."""
    try:
        vectors_KE = encode_text_raw(model, [text for texts in queries for text in texts])
    except FootageError as error:
        if len(queries) == 1:
            return [error]
        return [_of_model(model, [texts])[0] for texts in queries]
    return torch.split(vectors_KE, [len(texts) for texts in queries])
