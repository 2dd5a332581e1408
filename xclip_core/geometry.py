"""Where the model looks: sizes and offsets of the reference's test view, without any tensor library.

Decoding workers need this arithmetic and nothing else of the model, and must not wait for torch to import.
"""

from __future__ import annotations

RESIZE_RATIO = 256 / 224


def resized_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width after the resize that precedes the centre crop to `size`; aspect ratio kept."""
    short = int(RESIZE_RATIO * size)
    scale = short / min(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


def crop_offset(length: int, size: int) -> int:
    """Where a centre crop of `size` starts along an axis of `length` pixels."""
    return (length - size) // 2
