"""Decoded clips to vectors and prompt contexts: the stage that holds the model.

The stage travels as its settings and loads the model where it runs. Clips of several units share a forward pass;
a clip's vector does not depend on its neighbours beyond the last bits, which float16 rounding hides.
"""

# N clips, T frames, S pixels, C = 3 channels, E joint dimension, P patches

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.contexts import PACKERS
from pipeline.settings import ContextCode
from schemas.records import DecodedUnit, EmbeddedUnit
from xclip_core import Encoder, encode_video_with_context, load_encoder

CLIPS_PER_PASS = 16


def device_named(name: str) -> str:
    """`auto` as the best device there is."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


@dataclass(frozen=True)
class Embed:
    """Units of decoded clips to units of embedded ones."""

    model_source: str
    context: ContextCode
    device: str = "cpu"
    frames: int | None = None
    image_size: int | None = None

    @cached_property
    def model(self) -> Encoder:
        """Loaded on first use, in the process that uses it."""
        return load_encoder(self.model_source, frames=self.frames, image_size=self.image_size, device=self.device)

    def __call__(self, units: list[DecodedUnit]) -> list[EmbeddedUnit]:
        """One embedded unit for each decoded one, in order."""
        began = time.perf_counter()
        # One array for all units: passes are filled across their borders.
        frames_NTHWC = np.concatenate([unit.frames_NTHWC for unit in units])
        embedding_NE, contexts = self._forward(frames_NTHWC)
        per_clip_s = (time.perf_counter() - began) / len(frames_NTHWC)
        edges = pairwise(accumulate((len(unit.windows) for unit in units), initial=0))
        return [
            EmbeddedUnit(
                unit=unit.unit,
                windows=unit.windows,
                thumbnails=unit.thumbnails,
                embedding_NE=embedding_NE[first:last],
                contexts=tuple(contexts[first:last]),
                intact_samples=unit.intact_samples,
                decode_s=unit.decode_s,
                embed_s=per_clip_s * (last - first),
            )
            for unit, (first, last) in zip(units, edges, strict=True)
        ]

    def _forward(self, frames_NTHWC: NDArray[np.uint8]) -> tuple[NDArray[np.float32], list[bytes]]:
        """Frames N x T x S x S x 3 to vectors N x E at float16 precision, and N stored contexts."""
        pack = PACKERS[self.context]
        vectors, contexts = [], []
        for chunk in torch.split(torch.from_numpy(frames_NTHWC), CLIPS_PER_PASS):
            video_BE, context_BPE = encode_video_with_context(self.model, chunk)
            vectors.append(video_BE.cpu().numpy())
            contexts += [pack(context_PE) for context_PE in context_BPE.cpu().numpy()]
        return np.concatenate(vectors).astype(np.float16).astype(np.float32), contexts
