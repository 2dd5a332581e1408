"""The models that Ni et al. released, as data: what they are called, what they take, what they are for (spec §0).

HuggingFace's names, because that is where they are fetched from; the authors' own file names beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from xclip_core.config import XClipConfig

Architecture = Literal["B/32", "B/16", "L/14"]
ORGANISATION = "microsoft"
SHOTS = (2, 4, 8, 16)

_BASE = XClipConfig(
    frames=8,
    image_size=224,
    patch_size=32,
    embed_dim=512,
    vision_width=768,
    vision_layers=12,
    text_width=512,
    text_layers=12,
)
ARCHITECTURES: dict[Architecture, XClipConfig] = {
    "B/32": _BASE,
    "B/16": replace(_BASE, patch_size=16),
    "L/14": replace(_BASE, patch_size=14, embed_dim=768, vision_width=1024, vision_layers=24, text_width=768),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Released:
    """One released model. `official_file` is the authors' name of it, `knows` what it was trained on."""

    name: str
    architecture: Architecture
    frames: int
    image_size: int
    official_file: str
    knows: str

    @property
    def config(self) -> XClipConfig:
        """All sizes of the model."""
        return replace(ARCHITECTURES[self.architecture], frames=self.frames, image_size=self.image_size)


def _kinetics(architecture: Architecture, frames: int, image_size: int, year: int) -> Released:
    """A model trained on all of Kinetics-400 or -600."""
    kind, patch = architecture.split("/")
    size = {"B": "base", "L": "large"}[kind]
    words = ["xclip", size, f"patch{patch}", *(["kinetics-600"] if year == 600 else [])]
    if frames == 16:
        words.append("16-frames")
    pixels = "" if image_size == 224 else f"_{image_size}"
    return Released(
        name=f"{ORGANISATION}/{'-'.join(words)}",
        architecture=architecture,
        frames=frames,
        image_size=image_size,
        official_file=f"k{year}_{patch}_{frames}{pixels}.pth",
        knows=f"the {year} actions of Kinetics-{year}",
    )


def _few_shot(data: str, shots: int) -> Released:
    """A model trained on a few videos per class of HMDB-51 or UCF-101."""
    classes = {"hmdb": "51 actions of HMDB-51", "ucf": "101 actions of UCF-101"}[data]
    return Released(
        name=f"{ORGANISATION}/xclip-base-patch16-{data}-{shots}-shot",
        architecture="B/16",
        frames=32,
        image_size=224,
        official_file=f"few_{data}_{shots}.pth",
        knows=f"the {classes}, from {shots} videos each",
    )


def _all() -> Iterator[Released]:
    """Every released model, in the order in which they are shown."""
    yield _kinetics("B/32", 8, 224, 400)
    yield _kinetics("B/32", 16, 224, 400)
    yield _kinetics("B/16", 8, 224, 400)
    yield _kinetics("B/16", 16, 224, 400)
    yield _kinetics("L/14", 8, 224, 400)
    yield _kinetics("L/14", 16, 336, 400)
    yield _kinetics("B/16", 8, 224, 600)
    yield _kinetics("B/16", 16, 224, 600)
    yield _kinetics("L/14", 8, 224, 600)
    yield from (_few_shot(data, shots) for data in ("hmdb", "ucf") for shots in SHOTS)
    yield Released(
        name=f"{ORGANISATION}/xclip-base-patch16-zero-shot",
        architecture="B/16",
        frames=32,
        image_size=224,
        official_file="zero.pth",
        knows="Kinetics-400, trained for labels it has not seen",
    )


RELEASED = {model.name: model for model in _all()}
