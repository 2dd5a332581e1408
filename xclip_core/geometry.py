"""Where the model looks: sizes and offsets of the reference's test view, without any tensor library.

Decoding workers need this arithmetic and nothing else of the model, and must not wait for torch to import.
"""

from __future__ import annotations

RESIZE_RATIO = 256 / 224
# Pictures far from square are squeezed to this ratio, so that a 20000 x 2 frame does not become 730000 wide.
MAX_ASPECT = 16


def resized_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width after the resize that precedes the centre crop to `size`; aspect ratio kept."""
    return scaled_shape(height, width, resized_side(size))


def resized_side(size: int) -> int:
    """The short side before the centre crop to `size`: 256 for 224."""
    return int(RESIZE_RATIO * size)


def scaled_shape(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width once the shorter of them is `short_side`; aspect ratio kept."""
    scale = short_side / min(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


def squeezed(shape: tuple[int, int]) -> tuple[int, int]:
    """Height and width, the longer of them no more than MAX_ASPECT times the shorter."""
    limit = MAX_ASPECT * min(shape)
    return min(shape[0], limit), min(shape[1], limit)


def crop_offset(length: int, size: int) -> int:
    """Where a centre crop of `size` starts along an axis of `length` pixels."""
    return (length - size) // 2
