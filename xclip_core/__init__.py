"""X-CLIP (Ni et al., ECCV 2022) as a small library: load a model, encode clips and texts, score them.

`load` gives a model, `encode_video_with_context` turns frames B x T x S x S x 3 (uint8 RGB) into unit vectors and
prompt contexts, `encode_text_raw` turns texts into vectors, and `XClip.score` gives the model's logits of the two.
"""

from xclip_core.config import XClipConfig
from xclip_core.encode import encode_text, encode_text_raw, encode_video, encode_video_with_context
from xclip_core.hub import DEFAULT_MODEL, EMBEDDED, load
from xclip_core.model import Provenance, XClip

__all__ = [
    "DEFAULT_MODEL",
    "EMBEDDED",
    "Provenance",
    "XClip",
    "XClipConfig",
    "encode_text",
    "encode_text_raw",
    "encode_video",
    "encode_video_with_context",
    "load",
]
