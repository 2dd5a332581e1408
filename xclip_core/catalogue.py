"""The models that have names, with what it takes to choose among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xclip_core import cost, download, weights
from xclip_core.config import XClipConfig
from xclip_core.hub import EMBEDDED
from xclip_core.released import RELEASED

Where = Literal["embedded", "cached", "to fetch"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One model that `--model` takes by name. Storage is per clip, before compression; GMAC is to index a clip."""

    name: str
    architecture: str
    frames: int
    image_size: int
    parameters: int
    gmac_per_clip: float
    embedding_bytes: int
    context_bytes: int  # as int8, the default
    where: Where
    knows: str


def catalogue() -> tuple[Entry, ...]:
    """Every named model, the embedded ones first. Looks at the cache; touches no network."""
    embedded = (
        _entry(name, "own", weights.infer_config(weights.read_tensors(path)), "embedded", "generated motion and looks")
        for name, path in EMBEDDED.items()
    )
    released = (
        _entry(each.name, each.architecture, each.config, _where(each.name), each.knows) for each in RELEASED.values()
    )
    return (*embedded, *released)


def _where(name: str) -> Where:
    """Whether the weights of a released model are on this machine."""
    return "cached" if download.cached(name) else "to fetch"


def _entry(name: str, architecture: str, config: XClipConfig, where: Where, knows: str) -> Entry:
    """One line of the catalogue."""
    stored = cost.stored_bytes(config)
    return Entry(
        name=name,
        architecture=architecture,
        frames=config.frames,
        image_size=config.image_size,
        parameters=cost.parameter_count(config),
        gmac_per_clip=round(cost.clip_macs(config) / 1e9, 3),
        embedding_bytes=stored["embedding"],
        context_bytes=stored["context_int8"],
        where=where,
        knows=knows,
    )
