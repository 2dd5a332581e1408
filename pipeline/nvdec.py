"""Decoding on a GPU: packets through NVDEC, frames to torch without a copy, pictures as the CPU's scaler makes them.

A unit is either decoded whole on the device or left to a CPU, which knows what to do with damage. Pictures must be
those of `decode.Resizer`, for vectors of both are compared; so what swscale does is done again here, roundings too, in
matrix products. That part takes frames in any memory, and is tested without a device.
"""

# H x W pixels of a picture, C = 2 chroma channels

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import torch
from av.codec.hwaccel import HWAccel
from torch import Tensor
from torch.nn import functional as F
from torch.utils import dlpack

from pipeline import decode
from pipeline.decode import Device, Resizer
from pipeline.demux import each_packet, opened
from pipeline.samples import Picture
from schemas.errors import UndecodableVideo, VideoError, first_line
from schemas.records import DecodedUnit, DecoderProbe, Unit

# Weights of red and blue in luma, by the frame's colour matrix (AVColorSpace). Unnamed is BT.601, as swscale takes it.
BT709, BT601, BT2020 = (0.2126, 0.0722), (0.299, 0.114), (0.2627, 0.0593)
MATRICES = {1: BT709, 2: BT601, 4: (0.30, 0.11), 5: BT601, 6: BT601, 7: (0.212, 0.087), 9: BT2020}
FULL_RANGE = 2  # AVColorRange: 0 to 255; else luma is 16 to 235 and chroma 16 to 240
# Codecs whose chroma samples lie over the left of two luma samples where the stream says nothing; PyAV does not tell.
SITED_LEFT = frozenset({"h264", "hevc", "mpeg4"})
# swscale's table of luma starts so far down, and so is right to the grey level for full range only.
TABLE_START, TABLE_ZERO = 326, 384

PROBE_FRAMES = 48
PROBE_PICTURES = 6
REFUSALS = (VideoError, RuntimeError, MemoryError)  # torch's are RuntimeErrors, "out of memory" among them


def decode_units(image_size: int, device: str, codecs: Collection[str], units: list[Unit]) -> list[DecodedUnit]:
    """Units as a stage: those of some codecs on a CUDA device, the others as ever."""
    return [
        decode_unit(unit, image_size, device) if unit.codec in codecs else decode.decode(unit, image_size)
        for unit in units
    ]


def decode_unit(unit: Unit, image_size: int, device: str) -> DecodedUnit:
    """The unit's clips at model size, decoded on a CUDA device if that gives all of them, else on the CPU.

    Raises UndecodableVideo as `decode.decode` does. `fallback` says why the CPU had to do it.
    """
    began = time.perf_counter()
    try:
        return _all_there(decode.decode(unit, image_size, on_device(device, unit.codec)))
    except REFUSALS as error:
        why = first_line(error)
    # Only now, without the traceback: it holds frames, and with them memory of the device.
    decoded = decode.decode(unit, image_size)
    return replace(decoded, decode_s=time.perf_counter() - began, fallback=why)


def _all_there(decoded: DecodedUnit) -> DecodedUnit:
    """The unit as it is. Raises UndecodableVideo where samples are missing or not near their time."""
    wanted = sum(len(window.frame_times_s) for window in decoded.unit.windows)
    if sum(decoded.intact_samples) < wanted:
        raise UndecodableVideo(f"{sum(decoded.intact_samples)} of {wanted} samples came out of the device intact")
    return decoded


def on_device(device: str, codec: str) -> Device:
    """What decodes a video on `cuda` or `cuda:N`. Raises RuntimeError where that cannot be used."""
    wake(device)
    index = torch.device(device).index or 0
    # torch's own context, made current by `wake`: memory of another would be closed to it. FFmpeg's own way to the same
    # one ("primary_ctx", PyAV's choice) fails in a process where torch came first, since they set it up differently.
    options: dict[str, object] = {"primary_ctx": "0", "current_ctx": "1"}
    hwaccel = HWAccel("cuda", str(index), allow_software_fallback=False, options=options, is_hw_owned=True)
    return Device(hwaccel, DeviceResizer(is_sited_left=codec in SITED_LEFT))


def wake(device: str) -> None:
    """Makes the device's context, and makes it this thread's. Raises RuntimeError where there is none."""
    torch.cuda.set_device(torch.device(device).index or 0)
    torch.cuda.synchronize()  # the context is made by the first call that needs it


def woken(device: str) -> None:
    """The same before a stage's memory is counted; a device that does not wake is the units' matter."""
    try:
        wake(device)
    except RuntimeError:
        return


# --- pictures


class DeviceResizer(Resizer):
    """`Resizer` for NV12 and P010 frames in any memory that torch can use."""

    def __init__(self, *, is_sited_left: bool) -> None:
        super().__init__()
        self._is_sited_left = is_sited_left

    def upright(self, frame: Any, shape: tuple[int, int]) -> Picture:
        """As of `Resizer`. Raises RuntimeError for frames of another kind."""
        scaled_HWC = scaled_rgb(frame, shape, is_sited_left=self._is_sited_left)
        return np.rot90(scaled_HWC.cpu().numpy(), k=round(frame.rotation / 90))


def scaled_rgb(frame: Any, shape: tuple[int, int], *, is_sited_left: bool) -> Tensor:
    """A frame at height x width `shape` as swscale scales it by area: H x W x 3 uint8 RGB in the frame's memory.

    Raises RuntimeError (NotImplementedError among it) for frames that are not NV12 or P010, or of an odd matrix.
    """
    if frame.colorspace not in MATRICES:
        raise NotImplementedError(f"no colour matrix number {frame.colorspace} on a device")
    luma_HW, chroma_CHW = planes(frame)
    colours = _Colours(*MATRICES[frame.colorspace], is_full=frame.color_range == FULL_RANGE)
    if shape == tuple(luma_HW.shape):  # nothing to scale: each four pixels share their chroma, and all is rounded down
        chroma_CHW = chroma_CHW.repeat_interleave(2, -2).repeat_interleave(2, -1)[:, : shape[0], : shape[1]]
        rgb_CHW = _exactly(luma_HW, chroma_CHW, colours).floor()
    elif shape[1] % 2:
        rgb_CHW = _exactly(*_scaled(luma_HW, chroma_CHW, shape, 1, is_sited_left=is_sited_left), colours)
    else:  # swscale's RGB has a colour for each two pixels of a row, but where rows are of odd length
        rgb_CHW = _by_tables(*_scaled(luma_HW, chroma_CHW, shape, 2, is_sited_left=is_sited_left), colours)
    return rgb_CHW.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()


def planes(frame: Any) -> tuple[Tensor, Tensor]:
    """Luma H x W and chroma 2 x H/2 x W/2, float32 on the scale of 8 bits. Raises RuntimeError for another layout."""
    if frame.format.name == "cuda":
        torch.cuda.synchronize()  # PyAV's DLPack knows no streams: what FFmpeg has begun must be over
    # By the capsule: `from_dlpack(plane)` would name torch's stream, which PyAV refuses.
    luma_HW, chroma_HWC = (dlpack.from_dlpack(plane.__dlpack__()) for plane in islice(_two(frame), 2))
    if chroma_HWC.ndim != 3 or chroma_HWC.shape[2] != 2 or luma_HW.dtype not in (torch.uint8, torch.uint16):
        raise NotImplementedError(f"frames of layout {frame.format.name} are not scaled on a device")
    unit = 1 if luma_HW.dtype == torch.uint8 else 256  # P010 has its 10 bits at the top of 16
    chroma_CHW = chroma_HWC.permute(2, 0, 1).float() / unit
    height, width = luma_HW.shape
    # PyAV leaves out what covers but one row or column of an odd frame.
    missing = (0, -(-width // 2) - chroma_CHW.shape[2], 0, -(-height // 2) - chroma_CHW.shape[1])
    return luma_HW.float() / unit, F.pad(chroma_CHW, missing, mode="replicate") if any(missing) else chroma_CHW


def _two(frame: Any) -> Iterator[Any]:
    """The two planes of a frame."""
    if len(frame.planes) != 2:
        raise NotImplementedError(f"frames of {len(frame.planes)} planes are not scaled on a device")
    yield from frame.planes


def _scaled(
    luma_HW: Tensor, chroma_CHW: Tensor, shape: tuple[int, int], pixels: int, *, is_sited_left: bool
) -> tuple[Tensor, Tensor]:
    """Luma and chroma at another height and width; one chroma sample for so many pixels of a row, repeated."""
    height, width = shape
    shift = 0.25 if is_sited_left else 0.0
    chroma_CHW = _resampled(chroma_CHW, (height, width // pixels), shift).repeat_interleave(pixels, -1)
    return _resampled(luma_HW, shape), chroma_CHW


def _resampled(plane: Tensor, shape: tuple[int, int], shift: float = 0.0) -> Tensor:
    """Planes ... x H x W at another height and width; columns `shift` samples further right."""
    rows_OI = _weights(plane.shape[-2], shape[0], 0.0, plane.device)
    columns_OI = _weights(plane.shape[-1], shape[1], shift, plane.device)
    return rows_OI @ plane @ columns_OI.T


@lru_cache(maxsize=32)
def _weights(size: int, target: int, shift: float, device: torch.device) -> Tensor:
    """How much of each of I = `size` samples is in each of O = `target`: O x I float32, each row's sum 1.

    Smaller: by how much of a target's stretch a sample covers. Larger: by a line between two. What lies outside is as
    the sample at the edge.
    """
    ratio = size / target
    weights_OI = np.zeros((target, size + 2))  # with one more sample at either edge
    at = np.arange(-1, size + 1)
    if ratio > 1:
        low_O1 = np.arange(target)[:, None] * ratio + shift
        weights_OI = np.clip(np.minimum(low_O1 + ratio, at + 1) - np.maximum(low_O1, at), 0, None) / ratio
    else:
        centre_O1 = (np.arange(target)[:, None] + 0.5) * ratio - 0.5 + shift
        weights_OI = np.clip(1 - np.abs(centre_O1 - at), 0, None)
    weights_OI[:, 1] += weights_OI[:, 0]
    weights_OI[:, -2] += weights_OI[:, -1]
    return torch.tensor(weights_OI[:, 1:-1], dtype=torch.float32, device=device)


@dataclass(frozen=True, slots=True)
class _Colours:
    """What a frame's numbers mean: the weights of red and blue in luma, and whether it has all of 0 to 255."""

    red: float
    blue: float
    is_full: bool

    @property
    def factors(self) -> tuple[float, float, float, float, float]:
        """What stretches luma, and what V adds to red, V and U to green, U to blue, in stretched grey levels."""
        luma, chroma = (1.0, 1.0) if self.is_full else (255 / 219, 255 / 224)
        of_v, of_u = 2 * (1 - self.red) * chroma, 2 * (1 - self.blue) * chroma
        green = 1 - self.red - self.blue
        return luma, of_v, -of_v * self.red / green, -of_u * self.blue / green, of_u


def _exactly(luma_HW: Tensor, chroma_CHW: Tensor, colours: _Colours) -> Tensor:
    """RGB 3 x H x W of luma and chroma 2 x H x W, not rounded."""
    luma, v_red, v_green, u_green, u_blue = colours.factors
    grey_HW = (luma_HW - (0 if colours.is_full else 16)) * luma
    u_HW, v_HW = chroma_CHW - 128
    return torch.stack([grey_HW + v_red * v_HW, grey_HW + v_green * v_HW + u_green * u_HW, grey_HW + u_blue * u_HW])


def _by_tables(luma_HW: Tensor, chroma_CHW: Tensor, colours: _Colours) -> Tensor:
    """The same by swscale's tables: all is rounded first, and what chroma adds is whole steps of luma, rounded down."""
    luma, v_red, v_green, u_green, u_blue = colours.factors
    start = 0 if colours.is_full else TABLE_START * luma - TABLE_ZERO - 16
    luma_HW = luma_HW.round()
    u_HW, v_HW = chroma_CHW.round()
    steps = [
        _steps(v_HW, v_red / luma),
        _steps(v_HW, v_green / luma) + _steps(u_HW, u_green / luma),
        _steps(u_HW, u_blue / luma),
    ]
    return torch.stack([(luma_HW + step_HW) * luma + start for step_HW in steps])


def _steps(chroma_HW: Tensor, factor: float) -> Tensor:
    """Whole steps of luma that chroma of 0 to 255 adds."""
    return torch.floor(chroma_HW * factor) - math.floor(128 * factor)


# --- is it worth it


def compare_units(image_size: int, device: str, units: list[Unit]) -> list[DecoderProbe]:
    """`compare` as a stage."""
    return [compare(unit, image_size, device) for unit in units]


def compare(unit: Unit, image_size: int, device: str) -> DecoderProbe:
    """What the first frames of a unit's video take on a CPU and on a CUDA device, and how their pictures differ.

    Raises as `decode.decode` where the CPU makes nothing of it.
    """
    cpu_s, expected = _first_frames(unit.uri, image_size, None)
    try:
        device_s, found = _first_frames(unit.uri, image_size, on_device(device, unit.codec))
        return DecoderProbe(unit.codec, cpu_s, device_s, difference(expected, found))
    except REFUSALS as error:
        return DecoderProbe(unit.codec, cpu_s, 0.0, 0.0, first_line(error))


def difference(expected: dict[int, Picture], found: dict[int, Picture]) -> float:
    """Grey levels, the mean over all pixels of frames by presentation time.

    Raises UndecodableVideo where they are other frames.
    """
    if not expected or expected.keys() != found.keys():
        raise UndecodableVideo(f"other frames came out of the device: {sorted(found)} and not {sorted(expected)}")
    return float(np.mean([np.abs(expected[at].astype(float) - found[at]).mean() for at in expected]))


def _first_frames(uri: str, image_size: int, device: Device | None) -> tuple[float, dict[int, Picture]]:
    """Seconds that each of the first frames takes, and pictures of some by presentation time.

    The first frame is not counted, with which a decoder starts. Of a CPU CPU time, of a device wall time.
    """
    resizer = Resizer() if device is None else device.resizer
    clock = time.thread_time if device is None else time.perf_counter
    taken: dict[int, Picture] = {}
    count, began = 0, 0.0
    with opened(uri, None if device is None else device.hwaccel) as (container, stream):
        frames = (frame for packet in each_packet(container, stream) for frame in packet.decode())
        for count, frame in enumerate(islice(frames, PROBE_FRAMES), start=1):
            if frame.pts is not None and count % (PROBE_FRAMES // PROBE_PICTURES) == 1:
                taken[frame.pts] = resizer.model_input(frame, image_size)
            began = clock() if count == 1 else began
        took_s = clock() - began
    if not taken:
        raise UndecodableVideo(decode.NOTHING_INTACT)
    return took_s / max(1, count - 1), taken
