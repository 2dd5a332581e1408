"""How a GPU's pictures compare with a CPU's: `python benchmarks/nvdec.py VIDEOS [--device cuda] [--size 224]`.

Of the first unit of each video: grey levels between the frames that the model gets (mean, and most of any), the least
cosine between its clips' vectors, and what a frame takes on each as the probe of `--decoder auto` measures it. Without
a device frames are decoded on the CPU and only scaled as a GPU scales them, which is where pictures can differ:
decoders of one codec give the same samples to the bit, or are broken. Vectors are of the embedded model, and there are
none at another size than its own. 4:4:4 is left out: a GPU does not give it as NV12.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from av.video.reformatter import VideoReformatter

from pipeline import decode, demux, nvdec, plan, sources
from pipeline.decode import Device
from pipeline.embed import Embed
from pipeline.samples import Picture
from pipeline.settings import IndexSettings
from schemas.errors import VideoError
from schemas.records import DecodedUnit, SourceFile, Unit

CLIPS = 4  # of each video at most
SIZE = 64  # pixels, of the embedded model
PLANAR = ("yuv420p", "yuvj420p", "yuv420p10le")


class Interleaved(nvdec.DeviceResizer):
    """A device's resizer, given frames as a CPU decodes them: their samples as NV12 or P010."""

    def upright(self, frame: object, shape: tuple[int, int]) -> Picture:
        """As of `Resizer`."""
        if frame.format.name not in PLANAR:
            raise NotImplementedError(f"{frame.format.name} is not 4:2:0")
        kind = "p010le" if "10" in frame.format.name else "nv12"
        return super().upright(VideoReformatter().reformat(frame, format=kind, threads=1), shape)


def first_unit(file: SourceFile) -> Unit:
    """The first clips of a video, by one pass: the very frames, and no loop filter left out."""
    video = demux.inspect(sources.fingerprint(file), replace(IndexSettings().sampling(8), tolerance_s=0.0))
    unit = plan.plan_video(video, None, {}, 0, "space").units[0]
    return replace(unit, windows=unit.windows[:CLIPS], steps=None)


def on_device(unit: Unit, size: int, device: str | None) -> DecodedUnit:
    """The unit as a GPU gives it, or would."""
    if device is not None:
        return nvdec.decode_unit(unit, size, device)
    return decode.decode(unit, size, Device(None, Interleaved(is_sited_left=unit.codec in nvdec.SITED_LEFT)))


def row(unit: Unit, size: int, device: str | None, embed: Embed) -> tuple[float, int, float, str]:
    """Mean and most grey levels, the least cosine, and what else is to be said."""
    found, expected = on_device(unit, size, device), decode.decode(unit, size)
    levels = np.abs(found.frames_NTHWC.astype(int) - expected.frames_NTHWC)
    note = found.fallback
    if device is not None and not note:
        probe = nvdec.compare(unit, size, device)
        note = f"{1e3 * probe.device_s:.2f} ms a frame, {1e3 * probe.cpu_s:.2f} ms of a CPU {probe.refused}"
    cosine = least_cosine(embed, found, expected) if size == SIZE else math.nan
    return float(levels.mean()), int(levels.max()), cosine, note


def least_cosine(embed: Embed, found: DecodedUnit, expected: DecodedUnit) -> float:
    """Of the vectors of the same clips."""
    one_NE, other_NE = (made.embedding_NE.astype(float) for made in embed([found, expected]))
    lengths_N = np.linalg.norm(one_NE, axis=1) * np.linalg.norm(other_NE, axis=1)
    return float(((one_NE * other_NE).sum(1) / lengths_N).min())


def main() -> None:
    """Prints a line for each video and the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", type=Path)
    parser.add_argument("--device")
    parser.add_argument("--size", type=int, default=SIZE)
    asked = parser.parse_args()
    embed = Embed("footage-tiny", "none", precision="float32")
    rows = []
    for file in sources.take_inventory(asked.videos):
        try:
            unit = first_unit(file)
            rows.append(row(unit, asked.size, asked.device, embed))
        except (VideoError, NotImplementedError) as error:
            print(f"{Path(file.uri).name}: {error}")
            continue
        mean, most, cosine, note = rows[-1]
        print(f"{mean:6.3f} {most:4d} {cosine:.5f} {unit.codec:6s} {Path(file.uri).name} {note}")
    means, _, cosines, _ = map(np.array, zip(*rows, strict=True))
    print(f"{len(rows)} videos: levels {np.median(means):.3f} median, {means.max():.3f} most")
    if asked.size != SIZE:
        return
    print(
        f"cosines {np.median(cosines):.5f} median, {np.quantile(cosines, 0.05):.5f} 5th percentile, {cosines.min():.5f}"
    )


if __name__ == "__main__":
    main()
