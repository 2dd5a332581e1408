"""Sizes of a model and what it wants its input to be like: frozen records, inferred from weights, never typed in.

Every attention head is 64 wide in every released model (Ni et al., ECCV 2022, supplement), so head counts are
derived. HuggingFace's "large" conversions say 8 heads of 96 for two of the modules; that is a conversion error.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from schemas.errors import WeightsError

HEAD_WIDTH = 64
DEFAULT_MODEL = "footage-tiny"  # the embedded one, see hub.py

# What pixels of 0..255 are normalised with: ImageNet's values, which X-CLIP was trained with, and not CLIP's.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True, kw_only=True, slots=True)
class XClipConfig:
    """The shape of a model. Letters are those used for tensor suffixes throughout `xclip_core`."""

    frames: int  # T: frames per clip, fixed by the multi-frame integration position table
    image_size: int  # S: height and width in pixels
    patch_size: int  # P
    embed_dim: int  # E: the joint space
    vision_width: int  # D
    vision_layers: int
    text_width: int  # W
    text_layers: int
    vocab_size: int = 49408
    context_length: int = 77  # C: longest text in tokens, start and end included
    mit_layers: int = 1
    prompt_layers: int = 2

    arch: ClassVar[str | None] = None  # words become CLIP's tokens, as for every X-CLIP
    mean: ClassVar[tuple[float, ...]] = MEAN
    std: ClassVar[tuple[float, ...]] = STD

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise WeightsError(f"{field.name}={getattr(self, field.name)} in a model config; expected at least 1")
        for name in ("embed_dim", "vision_width", "text_width"):
            if getattr(self, name) % HEAD_WIDTH:
                raise WeightsError(f"{name}={getattr(self, name)} is not a multiple of the head width {HEAD_WIDTH}")
        if self.image_size % self.patch_size:
            raise WeightsError(f"image_size={self.image_size} is not a multiple of patch_size={self.patch_size}")

    @property
    def patches(self) -> int:
        """N: patches per frame."""
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameMeanConfig:
    """The same of an open_clip model that looks at frames one by one; `arch` is open_clip's name for it."""

    frames: int  # T: any number, a mean takes them all
    image_size: int  # S
    embed_dim: int  # E
    arch: str
    context_length: int  # C, in tokens of the model's own tokeniser
    mean: tuple[float, ...]  # of red, green and blue on the 0..255 scale
    std: tuple[float, ...]

    patches: ClassVar[int] = 0  # no text looks at a clip's patches, so that there is no context to store

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise WeightsError(f"frames={self.frames} in a model config; expected at least 1")


ModelConfig = XClipConfig | FrameMeanConfig
