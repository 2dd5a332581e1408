"""Small still pictures of clips: the only place that knows the image library."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LONG_SIDE = 160  # pixels
QUALITY = 60


def thumbnail_shape(height: int, width: int) -> tuple[int, int]:
    """Height and width of a thumbnail: the long side is 160 pixels, never enlarged, never below 1."""
    scale = min(1.0, LONG_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def to_webp(picture_HWC: NDArray[np.uint8]) -> bytes:
    """RGB H x W x 3 uint8 as the bytes of a WebP file."""
    stream = BytesIO()
    Image.fromarray(picture_HWC).save(stream, format="WEBP", quality=QUALITY, method=2)
    return stream.getvalue()


def decodes(content: bytes) -> bool:
    """Whether bytes are a picture down to the last pixel."""
    try:
        with Image.open(BytesIO(content), formats=["WEBP"]) as picture:
            picture.load()
    except (OSError, SyntaxError, ValueError):  # what Pillow raises for damage depends on where it is
        return False
    return True
