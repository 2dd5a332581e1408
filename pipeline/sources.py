"""Where footage comes from: a file, a folder, a glob or a list file becomes an inventory of files.

Files are found by extension in folders and taken as they are when named. What cannot be looked at becomes a problem
in the inventory and later a failure row, never an exception: one locked folder must not stop a run. A place that is
missing altogether is one: it may be a disk that is not mounted, and nothing may be retired for that.
"""

from __future__ import annotations

import errno
import glob
import os
import stat
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

import xxhash

from schemas.errors import InputError, MissingPlace, UnreadableFile
from schemas.records import Failed, HashedFile, SourceFile

# fmt: off
EXTENSIONS = frozenset((
    ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".h264", ".hevc", ".ivf", ".m2t", ".m2ts",
    ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogm",
    ".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".y4m",
))
# fmt: on
LIST_EXTENSIONS = frozenset({".txt", ".lst"})
READ_BYTES = 4 << 20


def to_uri(path: str | Path) -> str:
    """An absolute path as text that any table can hold: itself, or a file:// URL if it is not valid UTF-8."""
    absolute = os.path.abspath(path)  # noqa: PTH100  # resolve() would follow links and rename what the user named
    try:
        absolute.encode("utf-8")
    except UnicodeEncodeError:
        return Path(absolute).as_uri()
    return absolute


def to_path(uri: str) -> Path:
    """The path a uri of ours stands for."""
    return Path(os.fsdecode(unquote_to_bytes(uri.removeprefix("file://")))) if uri.startswith("file://") else Path(uri)


@dataclass(frozen=True, slots=True)
class Inventory:
    """The files that some places hold, looked at while iterating: a million of them are never in memory at once.

    `folders` are walked; only below one can a file be known to be gone by its absence. `named` are files that were
    named one by one. Iterating gives a `SourceFile` or a `Failed` for each, in no order, each uri once, and raises
    MissingPlace when a folder turns out to hold no video at all.
    """

    places: tuple[str, ...]  # as they are remembered: absolute
    folders: tuple[str, ...]
    named: tuple[str, ...]

    def __iter__(self) -> Iterator[SourceFile | Failed]:
        named = dict.fromkeys(self.named)
        yield from map(_look_at, named)
        for folder in self.folders:
            yield from _in_folder(folder, named.keys(), set(self.folders) - {folder})


def take_inventory(*places: str | Path) -> Inventory:
    """What the places stand for. Raises MissingPlace when one of them names nothing at all."""
    folders: list[str] = []
    named: list[str] = []
    for place in places:
        if Path(place).is_dir():
            folders.append(to_uri(place))
        else:
            named += map(to_uri, _named_by(place))
    return Inventory(tuple(map(to_uri, places)), tuple(dict.fromkeys(folders)), tuple(named))


def _named_by(place: str | Path) -> list[Path]:
    """The files that a name, a list file or a glob stands for."""
    path = Path(place)
    if path.is_file():
        return _in_list(path) if path.suffix.lower() in LIST_EXTENSIONS else [path]
    matches = sorted(glob.glob(str(place), recursive=True))  # noqa: PTH207  # absolute patterns, and names as given
    if not matches:
        raise MissingPlace(
            f"there is nothing at {place}: expected a video file, a folder, a glob or a .txt list file", str(place)
        )
    return [Path(match) for match in matches if not Path(match).is_dir()]


def _in_list(list_file: Path) -> list[Path]:
    """The files named in a text file, a path a line, relative to that file; empty lines and # comments are skipped."""
    try:
        lines = [line.strip() for line in list_file.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise InputError(f"the list file {list_file} is not UTF-8 text; expected a path a line") from error
    paths = [list_file.parent / line for line in lines if line and not line.startswith("#")]
    if not paths:
        raise InputError(f"the list file {list_file} names no files; expected a path a line")
    return paths


def _in_folder(folder: str, named: Container[str], others: Container[str]) -> Iterator[SourceFile | Failed]:
    """Every file below a folder whose extension is that of a video, but what is looked at as another place."""
    is_empty = True
    below = [os.fspath(to_path(folder))]
    while below:
        for entry in _entries(below.pop()):
            is_folder = not isinstance(entry, Failed) and entry.is_dir(follow_symlinks=False)
            if isinstance(entry, Failed) or (is_folder and to_uri(entry.path) in others):
                is_empty = False
                yield from (entry,) if isinstance(entry, Failed) else ()
            elif is_folder:
                below.append(entry.path)
            elif _is_video(entry):
                is_empty = False
                uri = to_uri(entry.path)
                yield from () if uri in named else (_look_at(uri),)
    if is_empty:
        looked_for = ", ".join(sorted(EXTENSIONS))
        raise MissingPlace(f"no video files under {folder}; looked for {looked_for}", folder)


def _entries(folder: str) -> Iterator[os.DirEntry[str] | Failed]:
    """What is in a folder, or the problem that it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        yield _problem(folder, error)


def _is_video(entry: os.DirEntry[str]) -> bool:
    """Whether a name is that of a video; a link to a folder may be called anything, and is not followed."""
    is_named_so = os.path.splitext(entry.name)[1].lower() in EXTENSIONS  # noqa: PTH122  # a million of them
    return is_named_so and not (entry.is_symlink() and Path(entry.path).is_dir())


def _look_at(uri: str) -> SourceFile | Failed:
    """Size and time of a regular file; a problem for anything else: a pipe would be waited for, for ever."""
    path = to_path(uri)
    try:
        found = os.stat(path)  # noqa: PTH116  # half a second in a million of them
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")  # noqa: TRY301
    except OSError as error:
        return _problem(path, error)
    return SourceFile(uri, found.st_size, found.st_mtime)


def now_at(uri: str) -> SourceFile | None:
    """What is at a uri now, or None where no regular file can be seen."""
    found = _look_at(uri)
    return found if isinstance(found, SourceFile) else None


def is_below(uri: str, folder: str) -> bool:
    """Whether a uri lies in a folder."""
    # Both as paths where they are quoted; the slash keeps /videos2 out of /videos.
    inner, outer = (str(to_path(each)) if each.startswith("file://") else each for each in (uri, folder))
    return inner.startswith(outer.rstrip("/") + "/")


def _problem(path: str | Path, error: OSError) -> Failed:
    """A file or folder that could not be looked at, as a failure."""
    source = HashedFile(SourceFile(to_uri(path), 0, 0.0), "")
    return Failed(source, UnreadableFile.kind, f"cannot be read: {error.strerror}", "scan", permanent=False)


def fingerprint(file: SourceFile) -> HashedFile:
    """Reads the whole file. Raises UnreadableFile when that fails."""
    digest = xxhash.xxh3_128()
    try:
        with to_path(file.uri).open("rb") as stream:
            while block := stream.read(READ_BYTES):
                digest.update(block)
    except OSError as error:
        raise UnreadableFile(f"cannot be read: {error.strerror}") from error
    return HashedFile(file, digest.hexdigest())


def fingerprint_files(files: list[SourceFile | HashedFile]) -> list[HashedFile]:
    """`fingerprint` as a stage; what has been read already passes."""
    return [file if isinstance(file, HashedFile) else fingerprint(file) for file in files]
