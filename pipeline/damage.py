"""Which frames a damaged packet spoils: all until the next key frame, for each is predicted from those before it.

A decoder raises for the damaged packet, or flags its frame, and nothing else; what it then predicts from that frame
comes out smeared and unmarked. H.264, MPEG-2 and MPEG-4 notice nearly all damage, M-JPEG some; VP8, VP9 and HEVC decode
noise without a word, and nobody can tell.
"""

from __future__ import annotations

from typing import Any, Protocol


class Frame(Protocol):
    """What is asked of a decoded frame."""

    time: Any  # seconds
    key_frame: Any
    is_corrupt: bool


class Damage:
    """Follows one pass over a stream, told of every packet that did not decode and of every frame as it comes out."""

    def __init__(self) -> None:
        self._at_s: float | None = None  # where the last damage is shown, while it lasts
        self._started = False

    def strike(self, stamp: int | None, tick_s: float) -> None:
        """A packet, to be shown at `stamp` if that is known, did not decode."""
        self._at_s = float("-inf") if stamp is None else stamp * tick_s

    def spoils(self, frame: Frame) -> bool:
        """Whether a frame, the next one in presentation order, is damaged."""
        # A key frame that was on its way when a later packet broke is shown before that, and ends nothing.
        if frame.key_frame and not frame.is_corrupt and self._at_s is not None and frame.time > self._at_s:
            self._at_s = None
        # Flags before the first key frame say that the decoder has no start yet; when it has one, it stops flagging.
        self._started = self._started or bool(frame.key_frame)
        if frame.is_corrupt and self._started:
            self._at_s = float(frame.time)
        return frame.is_corrupt or self._at_s is not None
