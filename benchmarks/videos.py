"""Videos for benchmarks, made where they are needed: a texture with a camera that moves over it.

Encoders find in them what they find in real footage (motion that predicts, detail that costs bits), which drawn scenes
and noise do not have. Long ones are short ones whose packets are written again and again, later each time: two hours
take seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

RATE_HZ = 25
SHOT_S = 5  # then the camera is somewhere else
X264_DEFAULTS = {"preset": "veryfast", "bf": "3", "g": "250", "refs": "3"}

Picture = NDArray[np.uint8]  # H x W x 3 RGB


def filmed(file: Path, *, seconds: float, size: tuple[int, int], seed: int = 0, options: dict[str, str]) -> Path:
    """H.264 in whatever container the name says, `size` is width and height; returns the file."""
    with av.open(str(file), "w") as output:
        stream = output.add_stream("libx264", rate=RATE_HZ)
        stream.width, stream.height = size
        stream.pix_fmt, stream.options = "yuv420p", options
        for picture in pictures(round(seconds * RATE_HZ), size, seed):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
    return file


def pictures(count: int, size: tuple[int, int], seed: int) -> Iterator[Picture]:
    """Views of a texture, width x height `size`, with some noise of a sensor."""
    random = np.random.default_rng(seed)
    width, height = size
    world = _texture(random, 2 * height, 2 * width)
    noise = random.integers(0, 6, (8, height, width, 3), np.uint8)
    place, speed = np.zeros(2), np.zeros(2)
    for number in range(count):
        if number % (SHOT_S * RATE_HZ) == 0:
            place, speed = random.uniform(0.2, 0.8, 2) * (height, width), random.uniform(-0.01, 0.01, 2)
        place = np.clip(place + speed * (height, width), 0, (height, width))
        top, left = place.astype(int)
        yield world[top : top + height, left : left + width] + noise[number % len(noise)]


def _texture(random: np.random.Generator, height: int, width: int) -> Picture:
    """Blotches of several sizes on one another: H x W x 3, at most 240."""
    total = np.zeros((height, width, 3), np.float32)
    for cell in (4, 16, 64):
        coarse = random.random((-(-height // cell), -(-width // cell), 3), np.float32)
        total += coarse.repeat(cell, 0).repeat(cell, 1)[:height, :width] * cell**0.5
    return (total * (240 / total.max())).astype(np.uint8)


def repeated(source: Path, file: Path, times: int) -> Path:
    """The packets of a video `times` times, one run after the other, without encoding anything."""
    with av.open(str(source)) as given:
        stream = given.streams.video[0]
        packets = [packet for packet in given.demux(stream) if packet.size]
        first, last = min(p.pts for p in packets), max(p.pts + (p.duration or 1) for p in packets)
        stamps = [(packet.pts, packet.dts) for packet in packets]
        with av.open(str(file), "w") as output:
            copy = output.add_stream_from_template(stream)
            for number in range(times):
                for packet, (pts, dts) in zip(packets, stamps, strict=True):
                    packet.pts, packet.dts, packet.time_base = (
                        pts + number * (last - first),
                        dts + number * (last - first),
                        stream.time_base,
                    )
                    packet.stream = copy
                    output.mux(packet)
    return file
