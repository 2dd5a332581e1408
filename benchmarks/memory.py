"""Memory of a decode worker over a thousand videos: it must be flat, or long runs die of small leaks.

One process does what a Ray worker does, without being replaced after 200 calls: inspects and decodes made videos of
several codecs one after the other, and notes its resident memory after each. Prints a chart for docs/poison.md.

    python benchmarks/memory.py [VIDEOS]
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from pipeline import decode, demux, plan, sources
from pipeline.settings import Sampling
from tests.media import make_video

VIDEOS = 1000
WARM_UP = 100  # the first videos load codecs and fill the allocator's pools
COLUMNS, ROWS = 60, 8
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
KINDS = {
    "h264.mp4": {"b_frames": 2},
    "mpeg4.avi": {"codec": "mpeg4"},
    "vp8.webm": {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "mjpeg.mov": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "mpeg2.mpg": {"codec": "mpeg2video"},
}


def rss_mib() -> float:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES / 2**20


def work_through(path: Path) -> None:
    """What decode workers do with one file."""
    source = sources.fingerprint(next(iter(sources.take_inventory(path))))
    video = demux.inspect(source, Sampling(window_s=1.0, stride_s=1.0, frames=8))
    for unit in plan.plan_video(video, None, {}, 0, "space").units:
        decode.decode(unit, 224)


def samples(count: int) -> list[float]:
    """Resident MiB after each of `count` videos; sizes and lengths differ from one to the next."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            # A child makes the video: encoders would leave their own memory here.
            name, options = list(KINDS.items())[number % len(KINDS)]
            path = Path(folder, f"{number}-{name}")
            child = os.fork()
            if not child:
                size = (160 + 16 * (number % 13), 128 + 16 * (number % 7))
                make_video(path, frames=20 + number % 30, size=size, **options)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            assert status == 0, f"{name} could not be made"
            work_through(path)
            path.unlink()
            found.append(rss_mib())
    return found


def chart(values: list[float]) -> str:
    """The samples as text, COLUMNS wide: the highest of each stretch."""
    step = len(values) / COLUMNS
    heights = [max(values[int(i * step) : int((i + 1) * step) + 1]) for i in range(COLUMNS)]
    top = max(heights) * 1.05
    lines = []
    for row in range(ROWS, 0, -1):
        level = top * row / ROWS
        cells = "".join("#" if height >= level - top / ROWS / 2 else " " for height in heights)
        lines.append(f"{level:6.0f} MiB |{cells.rstrip()}")
    return "\n".join([*lines, " " * 11 + "+" + "-" * COLUMNS, f"{'0':>12}{len(values):>{COLUMNS}} videos"])


def slope_kib(values: list[float]) -> float:
    """Growth per video after the warm-up, by least squares, in KiB."""
    tail = values[WARM_UP:]
    middle, mean = (len(tail) - 1) / 2, sum(tail) / len(tail)
    upper = sum((place - middle) * (value - mean) for place, value in enumerate(tail))
    return 1024 * upper / sum((place - middle) ** 2 for place in range(len(tail)))


def main() -> None:
    """Measures and prints."""
    values = samples(int(sys.argv[1]) if len(sys.argv) > 1 else VIDEOS)
    print(chart(values))
    print(f"after {WARM_UP}: {values[WARM_UP - 1]:.1f} MiB; after {len(values)}: {values[-1]:.1f} MiB")
    print(f"highest {max(values):.1f} MiB; growth after the first {WARM_UP}: {slope_kib(values):+.2f} KiB a video")


if __name__ == "__main__":
    main()
