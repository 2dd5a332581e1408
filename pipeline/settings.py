"""What a run is made of: frozen settings, checked when they are made, stored with the run they describe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from pipeline.portions import Portion
from schemas.errors import InputError
from xclip_core.config import DEFAULT_MODEL, ModelConfig, XClipConfig

if TYPE_CHECKING:
    from xclip_core.encode import Encoder

ContextCode = Literal["int8", "float16", "none"]
EngineName = Literal["ray", "local"]
Segment = Literal["fixed", "shots"]
# What decodes; auto: a GPU's own decoder where a probe says that it is faster and gives the same pictures. No part of a
# space, as precision.
Decoder = Literal["auto", "cpu", "cuda"]
# What frames are encoded in; auto: bfloat16 where it is faster. No part of a space: vectors differ by less than a
# hundredth of what tells two clips apart.
Precision = Literal["auto", "float32", "bfloat16"]
# The same for indexing, where int8 is faster still on CPUs. By how much vectors differ is up to the model, so that auto
# has it tried on the first clips.
FramePrecision = Literal[Precision, "int8"]

# Models that tell how things move from one frame to the next by little else than where they are in each: with frames a
# quarter of a step off, the median clip's vector is at a cosine of 0.983 to the reference's, with this at 0.998, with
# the very frames at 0.999 (benchmarks/closeness.py).
MOTION_MODELS = frozenset({DEFAULT_MODEL})
MOTION_STEP_PART = 1 / 32

# How the indexer makes pixels; part of the space, because vectors of differently made pixels differ.
PREPROCESSING = "swscale area, short side 256/224, centre crop; imagenet mean and std; v1"
OWN_PREPROCESSING = "swscale area, short side 256/224, centre crop; the model's own mean and std; v1"
# The same for windows that follow shots: what of `cuts` is no rule that could be set otherwise.
CUTS_METHOD = "swscale area, 32 x 18, luma; third of 25 frames before, mean of 2 after; 6 frames a sample wait; v1"


@dataclass(frozen=True, kw_only=True, slots=True)
class ShotRules:
    """How shots are told apart, by how much each frame's luma differs from that of the frame before (see `cuts`).

    A frame starts a shot when it differs by `floor` or more, and by `ratio` (`key_ratio` for a key frame) times what is
    usual around it. `histogram` weighs the shift of grey levels against the mean difference, which is 0 to 255.
    benchmarks/shots.py measures them.
    """

    floor: float = 20.0
    ratio: float = 3.0
    key_ratio: float = 2.5  # encoders that look for cuts put key frames there
    histogram: float = 100.0
    persistence: float = 0.5  # of the difference that must still be there two frames later: flashes end sooner
    shortest_s: float = 1.0  # what is shorter joins a neighbour
    method: str = CUTS_METHOD


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How a video is cut into clips. Lengths in seconds; `stride_s` is from start to start.

    `tolerance_s` is how far from its moment a frame may be taken where that is cheaper: 0 takes the very frames, None
    allows a quarter of the time between two moments of a window. With `shots`, windows follow the shots of a video and
    are at most `window_s` long; frames are then always taken within that quarter.
    """

    window_s: float = 10.0
    stride_s: float = 10.0
    frames: int = 8
    tolerance_s: float | None = 0.0
    shots: ShotRules | None = None

    @classmethod
    def stored(cls, values: Mapping[str, Any]) -> Sampling:
        """Sampling as a run wrote it down; before windows could follow shots, none did."""
        shots = values.get("shots")
        return cls(**{**values, "shots": ShotRules(**shots) if shots else None})

    def __post_init__(self) -> None:
        for name, value in (("window", self.window_s), ("stride", self.stride_s)):
            if not 0.1 <= value <= 86_400:
                raise InputError(f"a {name} of {value} s is not usable; expected 0.1 to 86400 seconds")
        if self.tolerance_s is not None and not 0 <= self.tolerance_s <= self.window_s:
            raise InputError(f"a tolerance of {self.tolerance_s} s is not usable; expected 0 to the window's length")
        if self.shots is not None and (self.stride_s != self.window_s or self.tolerance_s is not None):
            raise InputError(
                "windows that follow shots have no stride and no tolerance of their own; leave out --stride and "
                "--tolerance, or expected --segment fixed"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexSettings:
    """Everything that `footage index` was asked for. `stride_s` None means equal to the window."""

    model: str = DEFAULT_MODEL
    frames: int | None = None  # None: as many as the weights were trained with; else the frame table is resampled
    image_size: int | None = None  # the same for pixels
    window_s: float = 10.0
    stride_s: float | None = None
    tolerance_s: float | None = None  # see Sampling
    segment: Segment = "fixed"
    context: ContextCode = "int8"
    engine: EngineName = "ray"
    device: str = "cpu"
    precision: FramePrecision = "auto"
    decoder: Decoder = "auto"
    # Custom resources of Ray's that the nodes offer which open videos, or which embed clips; None: any node.
    decode_resource: str | None = None
    embed_resource: str | None = None

    @classmethod
    def stored(cls, values: Mapping[str, Any]) -> IndexSettings:
        """Settings as a run wrote them down; before there was a tolerance, all frames were exact."""
        return cls(**{"tolerance_s": 0.0, **values})

    def sampling(self, frames: int) -> Sampling:
        """The sampling for a model that takes `frames` frames."""
        stride_s = self.window_s if self.stride_s is None else self.stride_s
        shots = ShotRules() if self.segment == "shots" else None
        tolerance_s = self.tolerance_s
        if tolerance_s is None and shots is None and self.model in MOTION_MODELS:
            tolerance_s = MOTION_STEP_PART * self.window_s / frames
        return Sampling(window_s=self.window_s, stride_s=stride_s, frames=frames, tolerance_s=tolerance_s, shots=shots)


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """How a run finds out what changed, and what it may retire. No part of a space."""

    rehash: bool = False  # read every file, also those whose size and time are known
    trust_mtime: bool = False  # take a new name for a vanished file of the same size and time, without reading it
    keep_gone: bool = False  # videos whose files vanished stay as they are
    yes: bool = False  # however much of the archive is to be retired
    keep_space: bool = False  # the space that serves until now is kept when another takes its place
    whole_archive: bool = False  # the inventory is of all places the archive knows: what is nowhere is gone
    wait_s: float = 0.0  # for another run on the archive to end
    portion: Portion | None = None  # the videos that this run is about; it leaves all others alone
    forget: tuple[str, ...] = ()  # places given up: what is known below them is gone, there or not

    def __post_init__(self) -> None:
        if self.rehash and self.trust_mtime:
            raise InputError("--rehash reads every file and --trust-mtime as few as it can; expected one of them")


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """Everything that decides a vector. Vectors of two spaces are never compared."""

    weights_hash: str
    model: ModelConfig
    sampling: Sampling
    preprocessing: str = PREPROCESSING

    @property
    def id(self) -> str:
        """Twelve hex digits that name the space in tables and folders."""
        said = asdict(self)
        if said["sampling"]["tolerance_s"] == 0:  # as archives have it from the time when all frames were exact
            del said["sampling"]["tolerance_s"]
        if said["sampling"]["shots"] is None:  # likewise from the time when all windows were fixed
            del said["sampling"]["shots"]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]


def space_of(model: Encoder, settings: IndexSettings) -> Space:
    """The space that a model and settings make together."""
    assert model.provenance is not None, "models come from xclip_core.load"
    return Space(
        weights_hash=model.provenance.weights_hash,
        model=model.config,
        sampling=settings.sampling(model.config.frames),
        preprocessing=PREPROCESSING if isinstance(model.config, XClipConfig) else OWN_PREPROCESSING,
    )
