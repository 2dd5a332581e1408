"""A frame-mean encoder: the mean of a clip's frame vectors is the clip's, no time, no prompt; and how such are named.

The paper's own baseline, and a way to use SigLIP, MobileCLIP and the like behind X-CLIP's interface. `openclip` loads
them; it is a module of its own because open_clip takes longer to import than all the rest of a search.

    openclip:ViT-B-32-quickgelu/openai       weights by open_clip's tag, fetched into HuggingFace's cache
    openclip:ViT-B-32-quickgelu=clip.pt      weights from a file, as open_clip reads them, tensors only
"""

# B clips, T frames, S pixels, E joint dimension, K texts, L tokens, C = 3 channels

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from schemas.errors import InputError, ShapeError
from xclip_core.config import FrameMeanConfig
from xclip_core.model import Provenance

PREFIX = "openclip:"
NAME = re.compile(r"openclip:(?P<arch>[^/=]+)(?:/(?P<tag>[^=]+)|=(?P<file>.+))")


class FrameMean(nn.Module):
    """An image-text model that looks at the frames of a clip one by one."""

    def __init__(self, config: FrameMeanConfig, clip: Any, provenance: Provenance) -> None:
        super().__init__()
        self.config = config
        self.provenance = provenance
        self.clip = clip

    @property
    def logit_scale(self) -> Tensor:
        """The log of what cosines are multiplied with; open_clip has it as () or (1,)."""
        scale: Tensor = self.clip.logit_scale
        return scale.reshape(())

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, which pixels must share."""
        return self.logit_scale.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are, and the inputs must be."""
        return self.logit_scale.device

    def video(self, pixels_BTCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Clips B x T x 3 x S x S to the mean of their frame vectors, B x E, and contexts of no patches, B x 0 x E."""
        T, S = self.config.frames, self.config.image_size
        if pixels_BTCHW.shape[1:] != (T, 3, S, S):
            raise ShapeError(
                f"pixels have shape {tuple(pixels_BTCHW.shape)}; expected (clips, {T} frames, 3 channels, {S}, {S})"
            )
        B = len(pixels_BTCHW)
        # CoCa's frame vectors would be of unit length unless told; the mean of no other kind is of those.
        frame_BTE = self.clip.encode_image(pixels_BTCHW.flatten(0, 1), normalize=False).unflatten(0, (B, T))
        return frame_BTE.mean(dim=1), pixels_BTCHW.new_empty(B, 0, self.config.embed_dim)

    def text(self, token_ids_KL: Tensor) -> Tensor:
        """Token ids K x L of the model's own tokeniser, padded to its full length, to raw text vectors K x E."""
        text_KE: Tensor = self.clip.encode_text(token_ids_KL, normalize=False)
        return text_KE

    def score(self, video_BE: Tensor, context_BNE: Tensor, text_KE: Tensor) -> Tensor:
        """Scaled cosines B x K. There is no context to look at; SigLIP's bias, the same for all, is left out."""
        if context_BNE.shape[:2] != (len(video_BE), 0):
            raise ShapeError(f"contexts have shape {tuple(context_BNE.shape)}; expected ({len(video_BE)} clips, 0, E)")
        unit_BE, unit_KE = (F.normalize(x.to(self.dtype), dim=-1) for x in (video_BE, text_KE))
        return self.logit_scale.exp() * unit_BE @ unit_KE.T


def is_name(source: str) -> bool:
    """Whether a model source is one of open_clip's."""
    return source.startswith(PREFIX)


def parsed(source: str) -> tuple[str, str | None, Path | None]:
    """Architecture, tag and file of a name; one of the last two is None. Raises InputError for another form."""
    match = NAME.fullmatch(source)
    if match is None:
        raise InputError(f"{source!r} is no model name; expected openclip:ARCH/TAG or openclip:ARCH=FILE")
    arch, tag, file = match.group("arch", "tag", "file")
    return arch, tag, Path(file) if file else None


def file_of(source: str) -> Path | None:
    """The weights file in a name, if there is one."""
    return parsed(source)[2]


def canonical(source: str) -> str:
    """The name with its file, if it has one, as an absolute path."""
    arch, _, file = parsed(source)
    return f"{PREFIX}{arch}={file.absolute()}" if file else source
