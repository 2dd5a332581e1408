"""The error tree. Foreign exceptions become one of these at the seam where the foreign library lives.

    FootageError                  anything this project raises on purpose; the message is one clear sentence
    ├── InputError                the caller named something that is not there or not usable
    │   ├── NotFound              an id that the archive does not have
    │   └── MissingPlace          a folder, file or glob that holds nothing: perhaps a disk that is not mounted
    ├── ModelError                a model or its weights
    │   ├── WeightsError          files that cannot be read, or keys and shapes that do not fit
    │   └── ShapeError            tensors or frames of the wrong shape, type or range
    ├── ArchiveError              an archive that is missing, foreign or inconsistent
    │   ├── SpaceMismatch         vectors of two spaces would have been compared
    │   ├── ArchiveBusy           another run is at work on it
    │   ├── LeaseLost             another run took over, because this one gave no sign of life
    │   └── RefusedToRetire       so much of an archive would go that a person must say yes
    ├── NoRoom                    a disk is full
    ├── EngineError               the engine cannot run, or a stage has a bug
    └── VideoError                one bad source file: data, not a reason to stop
        ├── UnreadableFile        the bytes cannot be read (permissions, vanished, I/O)
        ├── NotAVideo             no demuxer we allow accepts it, or it has no video stream
        ├── UndecodableVideo      a video stream from which no intact frame comes out
        ├── TooLarge              frames beyond the size cap
        └── OutOfMemory           more memory than one record may take

Only `VideoError` is ever turned into a failure row, and only by `pipeline/engine.py`, which makes one too of a bug that
a single file provokes, and calls it one; `pipeline/feed.py` leaves a bad video out of a batch. The rest stops the run.
"""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """The first line of what a foreign error says, or its class name where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class FootageError(Exception):
    """Base of every deliberate error; the command line prints its message and nothing else."""


class InputError(FootageError, ValueError):
    """A path, label file or option that cannot be used as given."""


class NotFound(InputError):
    """What was asked for by an id is not in the archive."""


class MissingPlace(InputError):
    """A place to look for footage that holds none. `place` is its name."""

    def __init__(self, message: str, place: str = "") -> None:
        super().__init__(message)
        self.place = place


class ModelError(FootageError, ValueError):
    """A model that cannot be used as asked."""


class WeightsError(ModelError):
    """A checkpoint that cannot be read, or whose keys or shapes do not fit X-CLIP."""


class ShapeError(ModelError):
    """Frames, pixels or tokens whose shape, dtype or channel order is not what the model was built for."""


class ArchiveError(FootageError):
    """An archive that is missing, was not made by footage, or contradicts itself."""


class SpaceMismatch(ArchiveError):
    """Vectors of two embedding spaces would have been compared."""


class ArchiveBusy(ArchiveError):
    """Another run writes the archive now."""


class LeaseLost(ArchiveError):
    """Another run has taken the archive over; what this one has not committed is the other's to do."""


class RefusedToRetire(ArchiveError):
    """Videos would be retired that may well be there: a person must look, and nothing was changed."""


class NoRoom(FootageError):
    """A disk or a temporary folder is full."""


class EngineError(FootageError):
    """The engine could not run the job, or a stage failed in a way that no bad file explains."""


class VideoError(FootageError):
    """One source file that cannot be indexed.

    `kind` is the word stored in `error_kind`; `permanent` says that the content decided it, so that trying again is
    useless until the file changes.
    """

    kind = "video"
    permanent = True


class UnreadableFile(VideoError):
    """The file's bytes could not be read."""

    kind = "unreadable"
    permanent = False


class NotAVideo(VideoError):
    """No allowed demuxer accepts the file, or it holds no video stream."""

    kind = "not_a_video"


class UndecodableVideo(VideoError):
    """The file has a video stream, but no intact frame comes out of it."""

    kind = "undecodable"


class TooLarge(VideoError):
    """The frames are larger than the decoder's cap."""

    kind = "too_large"


class OutOfMemory(VideoError):
    """Working on the file took more memory than its worker may have."""

    kind = "memory"
    permanent = False
