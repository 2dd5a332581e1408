"""Where footage comes from: a file, a folder, a glob or a list file becomes an inventory of files.

Files are found by extension in folders and taken as they are when named. What cannot be looked at becomes a problem
in the inventory and later a failure row, never an exception: one locked folder must not stop a run.
"""

from __future__ import annotations

import errno
import glob
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

import xxhash

from schemas.errors import InputError, UnreadableFile
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


@dataclass(frozen=True, slots=True)
class Inventory:
    """What was found. `root` is the folder that was walked; only then can a file be known to be gone."""

    files: tuple[SourceFile, ...]
    problems: tuple[Failed, ...]
    root: str | None


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


def take_inventory(videos: str | Path) -> Inventory:
    """All files that `videos` names. Raises InputError when it names nothing at all."""
    path = Path(videos)
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        return _from_list(path) if path.suffix.lower() in LIST_EXTENSIONS else _from_paths([path])
    matches = sorted(glob.glob(str(videos), recursive=True))  # noqa: PTH207  # absolute patterns, and names as given
    if not matches:
        raise InputError(f"there is nothing at {videos}: expected a video file, a folder, a glob or a .txt list file")
    return _from_paths([Path(match) for match in matches if not Path(match).is_dir()])


def _from_folder(folder: Path) -> Inventory:
    """Every file below `folder` whose extension is that of a video."""
    problems: list[Failed] = []

    def note(error: OSError) -> None:
        problems.append(_problem(str(error.filename), error))

    paths = [
        Path(parent, name)
        for parent, _, names in os.walk(folder, onerror=note)
        for name in names
        if Path(name).suffix.lower() in EXTENSIONS
    ]
    if not paths and not problems:
        raise InputError(f"no video files under {folder}; looked for {', '.join(sorted(EXTENSIONS))}")
    found = _from_paths(sorted(paths))
    return Inventory(found.files, (*problems, *found.problems), to_uri(folder))


def _from_list(list_file: Path) -> Inventory:
    """The files named in a text file, a path a line, relative to that file; empty lines and # comments are skipped."""
    try:
        lines = [line.strip() for line in list_file.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise InputError(f"the list file {list_file} is not UTF-8 text; expected a path a line") from error
    paths = [list_file.parent / line for line in lines if line and not line.startswith("#")]
    if not paths:
        raise InputError(f"the list file {list_file} names no files; expected a path a line")
    return _from_paths(paths)


def _from_paths(paths: list[Path]) -> Inventory:
    """The named files, each once, in the order given."""
    files: list[SourceFile] = []
    problems: list[Failed] = []
    # Keyed by uri: a file that a glob or list names twice is one file.
    for path in {to_uri(path): path for path in paths}.values():
        try:
            found = _look_at(path)
        except OSError as error:
            problems.append(_problem(str(path), error))
        else:
            files.append(SourceFile(to_uri(path), found.st_size, found.st_mtime))
    return Inventory(tuple(files), tuple(problems), None)


def _look_at(path: Path) -> os.stat_result:
    """Size and time of a regular file. Raises OSError for anything else: a pipe would be waited for, for ever."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    return found


def _problem(path: str, error: OSError) -> Failed:
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


def fingerprint_files(files: list[SourceFile]) -> list[HashedFile]:
    """`fingerprint` as a stage."""
    return [fingerprint(file) for file in files]
