"""Still pictures: of clips, and those that are searched with. The only place that knows the image library."""

# H x W pixels of a picture, S model size, C = 3 channels

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from schemas.errors import InputError
from xclip_core.geometry import crop_offset, resized_shape, squeezed

LONG_SIDE = 160  # pixels
QUALITY = 60
# A picture that is searched with comes from anywhere: few formats, all well tried, and none of more pixels than a film.
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]
MAX_PIXELS = 8192 * 8192


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


def model_input(file: Path, size: int) -> NDArray[np.uint8]:
    """A picture file as the indexer makes frames: area-averaged to 256/224 of the size, centre S x S x 3 RGB.

    Turned as its metadata says; of several frames the first. Raises InputError for what is no picture of ours.
    """
    try:
        with Image.open(file, formats=FORMATS) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise InputError(f"the picture {file} has {opened.width} x {opened.height} pixels; expected fewer")  # noqa: TRY301
            upright = ImageOps.exif_transpose(opened).convert("RGB")
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(
            f"the picture {file} cannot be read ({error}); expected one of {', '.join(FORMATS)}"
        ) from error
    height, width = squeezed(resized_shape(upright.height, upright.width, size))
    scaled = np.asarray(upright.resize((width, height), Image.Resampling.BOX))
    top, left = crop_offset(height, size), crop_offset(width, size)
    return np.ascontiguousarray(scaled[top : top + size, left : left + size])
