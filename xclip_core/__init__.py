"""X-CLIP (Ni et al., ECCV 2022) as a small library: load a model, encode clips and texts, score them.

`load` gives a model, `encode_video_with_context` turns frames B x T x S x S x 3 (uint8 RGB) into unit vectors and
prompt contexts, `encode_text_raw` turns texts into vectors, and `XClip.score` gives the model's logits of the two.
Names are imported on first use: whoever needs only `config` or `geometry` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xclip_core.config import DEFAULT_MODEL, XClipConfig
    from xclip_core.encode import Encoder, encode_text, encode_text_raw, encode_video, encode_video_with_context
    from xclip_core.hub import EMBEDDED, canonical_source, load, load_encoder, weights_file
    from xclip_core.model import Provenance, XClip

__all__ = [
    "DEFAULT_MODEL",
    "EMBEDDED",
    "Encoder",
    "Provenance",
    "XClip",
    "XClipConfig",
    "canonical_source",
    "encode_text",
    "encode_text_raw",
    "encode_video",
    "encode_video_with_context",
    "load",
    "load_encoder",
    "weights_file",
]

_HOMES = {
    "config": ("DEFAULT_MODEL", "XClipConfig"),
    "encode": ("Encoder", "encode_text", "encode_text_raw", "encode_video", "encode_video_with_context"),
    "hub": ("EMBEDDED", "canonical_source", "load", "load_encoder", "weights_file"),
    "model": ("Provenance", "XClip"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """A public name, from the module it lives in."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
