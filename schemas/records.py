"""What flows through the pipeline: frozen records, each made whole by one stage and never filled in later.

    SourceFile -> HashedFile -> InspectedVideo -> Unit -> DecodedUnit -> EmbeddedUnit -> Part
    (sources)     (sources)     (decode)          (plan)  (decode)       (embed)         (archive)

Any stage may turn its record into a `Failed`, which later stages pass on untouched. Times are seconds on the video's
own clock: 0 is where a player's time line starts.
"""

# N clips of a unit, T frames, S pixels, E joint dimension, P patches

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# A duplicate holds what another video of its space holds, the one that is ok or partial and of the same fingerprint.
VideoStatus = Literal["ok", "partial", "duplicate", "failed", "gone"]
LetterState = Literal["open", "retry", "settled"]
BUG = "bug"  # the error_kind of what no bad file explains: footage's own fault
Place = tuple[str, float | None]  # a uri and where a unit of it starts, or None for the whole file


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that was found. `uri` is an absolute path, a URL, or a file:// URL for a path that is not valid UTF-8."""

    uri: str
    size_bytes: int
    mtime_s: float


@dataclass(frozen=True, slots=True)
class HashedFile:
    """A file whose bytes were read. `fingerprint` is the hex xxh3-128 of the whole content."""

    file: SourceFile
    fingerprint: str


@dataclass(frozen=True, slots=True)
class VideoProfile:
    """What the packets of a video stream say; durations and frame counts of headers are never used."""

    duration_s: float
    width: int
    height: int
    rate_hz: float  # packets per second over the true span; 0 when there is only one
    codec: str
    rotation: int  # degrees counter-clockwise that a player turns the picture
    packet_count: int


@dataclass(frozen=True, slots=True)
class Window:
    """One clip to be: its span and the times of its T frames, which are those of frames that exist."""

    start_s: float
    end_s: float
    frame_times_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class DecodeSteps:
    """Which packets of a stream are decoded for some moments, by presentation time in ticks, as little-endian int64."""

    feed: bytes  # in the order of the file
    restarts: bytes  # those of them before which the decoder is emptied
    shows: bytes  # for each moment, ascending, the frame that shows it
    cost: float  # of decoding and scaling: seconds by a calibrated cost model, frames by the default one
    span: int = 0  # packets from the first fed to the last, as one pass would decode them
    is_exact: bool = True  # no tolerance was given: pictures must be those of one pass to the bit


@dataclass(frozen=True, slots=True)
class DecodeCost:
    """What decoding a codec's frames takes on one core of this machine, as measured by a short probe."""

    codec: str
    megapixel_s: float  # of a frame, whatever is in it
    byte_s: float  # of its packet
    restart_s: float  # to empty the decoder
    scale_s: float  # of a frame that is taken


@dataclass(frozen=True, slots=True)
class DecoderProbe:
    """What the first frames of a video took to become pictures, on a core and on a GPU, and how these differ."""

    codec: str
    cpu_s: float  # a frame, of CPU time
    device_s: float  # a frame, of wall time
    difference: float  # grey levels, mean over pixels
    refused: str = ""  # why the GPU does not decode it; the numbers mean nothing then


@dataclass(frozen=True, slots=True)
class UnitExplained:
    """How a unit was decoded, or is to be, and what that took."""

    uri: str
    start_s: float
    codec: str
    fed: int | None  # packets; None: one pass over everything, since the packets do not tell
    span: int | None  # packets that one pass would have fed
    restarts: int
    predicted_s: float | None  # None: the codec was not probed
    decode_s: float | None  # None: not decoded


@dataclass(frozen=True, slots=True)
class PackedPackets:
    """What demuxing tells of a video, as the `packets` table has it; see schemas/tables.py for the columns."""

    codec: str
    width: int
    height: int
    rotation: int
    tick_s: float
    zero_s: float
    end_s: float
    is_plannable: bool
    packet_count: int
    packets: bytes


@dataclass(frozen=True, slots=True)
class PacketsPart:
    """A Parquet file of packets that lies in the archive and is not committed yet. `path` is relative to the table."""

    path: str
    size_bytes: int
    row_count: int


@dataclass(frozen=True, slots=True)
class PacketsLot:
    """Files whose packets are in one file of the `packets` table, in the order in which they are there."""

    path: str
    files: tuple[HashedFile, ...]


@dataclass(frozen=True, slots=True)
class InspectedVideo:
    """A video whose packet index was read and cut into windows. `steps` are those of each unit's windows;
    None where packets do not tell, and all must be decoded. `packets` are there until they are kept.
    """

    source: HashedFile
    profile: VideoProfile
    windows: tuple[Window, ...]
    steps: tuple[DecodeSteps | None, ...] = ()
    packets: PackedPackets | None = None


@dataclass(frozen=True, slots=True)
class Unit:
    """One segment of one video: what is worked on, retried, resumed and committed."""

    unit_id: str
    video_id: str
    revision: int
    space: str
    uri: str
    windows: tuple[Window, ...]
    deadline_s: float
    steps: DecodeSteps | None = None  # None: everything from the first moment on is decoded
    codec: str = ""


@dataclass(frozen=True, slots=True)
class DecodedUnit:
    """The clips of a unit that could be decoded, in time order. `frames_NTHWC` is N x T x S x S x 3 uint8 RGB."""

    unit: Unit
    windows: tuple[Window, ...]  # with the true times of the frames taken; not the unit's where they follow shots
    frames_NTHWC: NDArray[np.uint8]
    thumbnails: tuple[bytes, ...]  # WebP
    intact_samples: tuple[int, ...]  # per clip, how many of its T frames were taken within tolerance of their time
    decode_s: float
    fallback: str = ""  # why a GPU that was to decode it did not; empty where none was to, or it did


@dataclass(frozen=True, slots=True)
class EmbeddedUnit:
    """The same clips as vectors. `embedding_NE` is N x E float32 of unit length at float16 precision."""

    unit: Unit
    windows: tuple[Window, ...]
    thumbnails: tuple[bytes, ...]
    embedding_NE: NDArray[np.float32]
    contexts: tuple[bytes, ...]  # one stored prompt context per clip, see pipeline/contexts.py
    intact_samples: tuple[int, ...]
    decode_s: float
    embed_s: float
    encoder: str = ""  # how it was embedded, for the run's row
    fallback: str = ""  # as of the decoded unit


@dataclass(frozen=True, slots=True)
class UnitOutcome:
    """What became of a unit whose clips are in a part or already in the archive."""

    unit_id: str
    video_id: str
    clip_count: int
    intact_samples: int
    sample_s: float = 0.0  # seconds: the length of each clip times its intact samples
    decode_s: float = 0.0
    embed_s: float = 0.0
    fallback: str = ""  # why a GPU that was to decode it did not


@dataclass(frozen=True, slots=True)
class Part:
    """A Parquet file of clips that lies in the archive and is not committed yet. `path` is relative to the table."""

    path: str
    size_bytes: int
    row_count: int
    space: str
    outcomes: tuple[UnitOutcome, ...]
    encoder: str = ""  # how it was embedded, for the run's row


@dataclass(frozen=True, slots=True)
class Failed:
    """A record that a stage could not process because the file is bad, or whose worker died on it."""

    record: Any
    kind: str
    error: str
    stage: str
    permanent: bool  # decided by the content: trying again without a change is useless


@dataclass(frozen=True, slots=True)
class Failure:
    """One video that could not be used, as reported to people."""

    uri: str
    error_kind: str
    error: str


@dataclass(frozen=True, slots=True)
class UnitTime:
    """How long decoding a unit took, of what it may take."""

    uri: str
    start_s: float
    decode_s: float
    deadline_s: float

    @property
    def share(self) -> float:
        """Of the deadline."""
        return self.decode_s / self.deadline_s


@dataclass(frozen=True, slots=True)
class VideoRow:
    """One row of the `videos` table; see schemas/tables.py for the columns."""

    video_id: str
    uri: str
    size_bytes: int
    mtime_s: float
    fingerprint: str
    revision: int
    space: str
    duration_s: float
    width: int
    height: int
    rate_hz: float
    codec: str
    rotation: int
    clip_count: int
    decoded_fraction: float
    status: VideoStatus
    error_kind: str | None
    error: str | None
    stage: str | None
    permanent: bool
    attempts: int
    run_id: str
    indexed_at: Any  # datetime in UTC


@dataclass(frozen=True, slots=True)
class Letter:
    """One row of the dead-letter, the `failures` table; see schemas/tables.py for the columns."""

    space: str
    uri: str
    fingerprint: str
    size_bytes: int
    mtime_s: float
    unit_id: str | None
    start_s: float | None
    end_s: float | None
    stage: str
    error_kind: str
    error: str
    permanent: bool
    attempts: int
    first_seen: Any  # datetime in UTC
    last_seen: Any  # datetime in UTC
    run_id: str
    decoder: str
    state: LetterState

    @property
    def place(self) -> Place:
        """What it is about: equal for two letters of which the later one counts."""
        return self.uri, self.start_s


LettersByUri = Mapping[str, Mapping[float | None, Letter]]  # the parts of a `Place` one after the other


@dataclass(frozen=True, slots=True)
class ScoredClip:
    """A clip that was found. `score` is what it is ranked by, `recall_score` the cosine that found it.

    `recall_rank` and `rank` are its places, from 1, among all candidates by the one and by the other.
    """

    clip_id: str
    video_id: str
    start_s: float
    end_s: float
    score: float
    recall_score: float
    recall_rank: int = 0
    rank: int = 0


# What decided a hit's place among the candidates; both: it is the same by recall and by the model's score.
DecidedBy = Literal["recall", "re-rank", "both"]


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer to a query, a moment of a video; `clip_id`, `score` and `recall_score` are those of its best clip.

    `score` is the model's logit; `recall_score` the cosine that found the clip, and `plain_score` the logit that is
    made of that cosine. `clips` are the windows it was put together from, in time order; `folded` the best clips of
    other places that look the same.
    """

    rank: int
    score: float
    recall_score: float
    clip_id: str
    video_id: str
    uri: str
    start_s: float
    end_s: float
    plain_score: float = 0.0
    recall_rank: int = 0  # among all candidates, from 1
    model_rank: int = 0
    decided_by: DecidedBy = "recall"
    clips: tuple[ScoredClip, ...] = ()
    folded: tuple[ScoredClip, ...] = ()
