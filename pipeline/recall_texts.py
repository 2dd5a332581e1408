"""Texts that people might ask for, as vectors: what the recall of an index is measured with, beside clips."""

# Q texts, E joint dimension

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.settings import IndexSettings
from pipeline.vectors import Vectors

if TYPE_CHECKING:
    from xclip_core import Encoder

Texts = Callable[[], Vectors]  # Q x E, when they are needed


def by_model(model: Encoder) -> Texts:
    """By a model that is there."""

    def encoded() -> Vectors:
        from xclip_core import encode_text
        from xclip_core.captions import everyday_texts

        vectors_QE: Vectors = encode_text(model, everyday_texts()).float().cpu().numpy()
        return vectors_QE

    return encoded


def by_settings(settings: IndexSettings) -> Texts:
    """By the model of a run, which is loaded: indexes that compare all clips need none."""

    def encoded() -> Vectors:
        from xclip_core import load_encoder

        return by_model(load_encoder(settings.model, frames=settings.frames, image_size=settings.image_size))()

    return encoded
