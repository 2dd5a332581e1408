"""Where footage comes from: files, folders, globs, lists, manifests and tars, here or in a store, as an inventory.

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
from typing import IO
from urllib.parse import unquote_to_bytes

import xxhash

from pipeline import manifests, stores, tars
from pipeline.stores import AnyPath
from schemas.errors import InputError, MissingPlace, NotAVideo, UnreadableFile, first_line
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


def to_uri(path: str | AnyPath) -> str:
    """A place as text that any table can hold: a URL, an absolute path, or a file:// URL if that is not valid UTF-8."""
    place = stores.to_place(path)
    return _as_text(str(place)) if isinstance(place, Path) else str(place)


def _as_text(absolute: str) -> str:
    """An absolute path as `to_uri` gives it."""
    try:
        absolute.encode("utf-8")
    except UnicodeEncodeError:
        return Path(absolute).as_uri()
    return absolute


def to_path(uri: str) -> AnyPath:
    """The path a uri of ours stands for."""
    if stores.is_url(uri):
        return stores.to_place(uri)
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
            others = set(self.folders) - {folder}
            if not tars.is_named_so(folder) or _is_real_folder(folder):
                below = _in_store if stores.is_url(folder) else _in_folder
                yield from below(folder, named.keys(), others)
                continue
            found = list(_in_tar(folder, named.keys()))
            yield from found
            if not found:
                raise _no_videos(folder)


def take_inventory(*places: str | Path) -> Inventory:
    """What the places stand for. Raises MissingPlace when one of them names nothing at all."""
    folders: list[str] = []
    named: list[str] = []
    for place in places:
        if _is_folder(place):
            folders.append(to_uri(place))
        else:
            named += map(to_uri, _named_by(place))
    return Inventory(tuple(map(to_uri, places)), tuple(dict.fromkeys(folders)), tuple(named))


def _is_folder(place: str | Path) -> bool:
    """Whether a place is a folder, or a tar, which is one too. Raises MissingPlace when a store does not tell."""
    if isinstance(place, Path) or not stores.is_url(place):
        return Path(place).is_dir() or (tars.is_named_so(str(place)) and Path(place).is_file())
    found = _asked(place)
    return found is not None and (found.is_folder or tars.is_named_so(place.rstrip("/")))


def _is_real_folder(uri: str) -> bool:
    """Whether what is called like a tar is a folder after all."""
    place = to_path(uri)
    if isinstance(place, Path):
        return place.is_dir()
    found = _asked(uri)
    return found is not None and found.is_folder


def _asked(url: str) -> stores.Entry | None:
    """What a store has at a URL. Raises MissingPlace when it does not tell: nothing may be retired for that."""
    try:
        return stores.look(url)
    except OSError as error:
        raise MissingPlace(f"{url} cannot be looked at: {said(error)}", url) from error


def _named_by(place: str | Path) -> list[AnyPath]:
    """The files that a name, a list file, a manifest or a glob stands for."""
    path = stores.to_place(place) if stores.is_url(place) else Path(place)
    if path.is_file() if isinstance(path, Path) else _asked(str(place)):
        if manifests.is_manifest(path):
            return _in_manifest(path)
        return _in_list(path) if path.suffix.lower() in LIST_EXTENSIONS else [path]
    matches: list[AnyPath] = _matches(place) if isinstance(path, Path) else stores.matches(path)
    if not matches:
        raise MissingPlace(
            f"there is nothing at {place}: expected a video file, a folder, a glob or a .txt list file, a "
            ".csv, .jsonl or .parquet manifest, or a .tar",
            str(place),
        )
    return [match for match in matches if not isinstance(match, Path) or not match.is_dir()]


def _matches(pattern: str | Path) -> list[AnyPath]:
    """The files and folders of this machine that a glob stands for."""
    # Absolute patterns, and names as given: what pathlib's own does not take, or changes.
    return [Path(match) for match in sorted(glob.glob(str(pattern), recursive=True))]  # noqa: PTH207


def _in_list(list_file: AnyPath) -> list[AnyPath]:
    """The files named in a text file, a path or URL a line, relative to that file; empty lines and # are skipped."""
    try:
        with stores.open_binary(list_file) as stream:
            lines = [line.strip() for line in stream.read().decode("utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise InputError(f"the list file {list_file} is not UTF-8 text; expected a path a line") from error
    named = [line for line in lines if line and not line.startswith("#")]
    if not named:
        raise InputError(f"the list file {list_file} names no files; expected a path a line")
    return [_beside(list_file, name) for name in named]


def _in_manifest(manifest: AnyPath) -> list[AnyPath]:
    """The files named in a table; relative to it, as in a list file."""
    try:
        paths = [_beside(manifest, name) for name in manifests.names(manifest)]
    except OSError as error:
        raise MissingPlace(f"the manifest {manifest} cannot be read: {said(error)}", str(manifest)) from error
    if not paths:
        raise InputError(f"the manifest {manifest} names no files; {manifests.EXPECTED}")
    return paths


def _beside(list_file: AnyPath, name: str) -> AnyPath:
    """What a name in a file stands for: a URL, an absolute path, or one relative to that file."""
    return to_path(name) if stores.is_url(name) or name.startswith("file://") else list_file.parent / name


def _in_folder(folder: str, named: Container[str], others: Container[str]) -> Iterator[SourceFile | Failed]:
    """Every file below a folder whose extension is that of a video, but what is looked at as another place."""
    is_empty = True
    below = [str(to_path(folder))]
    while below:
        for entry in _entries(below.pop()):
            is_folder = not isinstance(entry, Failed) and entry.is_dir(follow_symlinks=False)
            if isinstance(entry, Failed) or (is_folder and _as_text(entry.path) in others):
                is_empty = False
                yield from (entry,) if isinstance(entry, Failed) else ()
            elif is_folder:
                below.append(entry.path)
            elif tars.is_named_so(entry.name):
                found = [] if _as_text(entry.path) in others else list(_in_tar(_as_text(entry.path), named))
                is_empty = is_empty and not found
                yield from found
            elif _is_video(entry):
                is_empty = False
                uri = _as_text(entry.path)
                yield from () if uri in named else (_look_at(uri),)
    if is_empty:
        raise _no_videos(folder)


def _no_videos(folder: str) -> MissingPlace:
    """That a folder holds none: it may be a disk that is not mounted."""
    looked_for = ", ".join(sorted(EXTENSIONS))
    return MissingPlace(f"no video files under {folder}; looked for {looked_for}", folder)


def _in_store(folder: str, named: Container[str], others: Container[str]) -> Iterator[SourceFile | Failed]:
    """As `_in_folder`, of a folder in a store; one listing tells of all that is in it, and no file is asked for."""
    is_empty = True
    below = [folder]
    while below:
        for entry in _listed(below.pop()):
            if isinstance(entry, Failed) or (entry.is_folder and entry.url in others):
                is_empty = False
                yield from (entry,) if isinstance(entry, Failed) else ()
            elif entry.is_folder:
                below.append(entry.url)
            elif tars.is_named_so(entry.url):
                found = [] if entry.url in others else list(_in_tar(entry.url, named))
                is_empty = is_empty and not found
                yield from found
            elif os.path.splitext(entry.url)[1].lower() in EXTENSIONS:  # noqa: PTH122  # a URL
                is_empty = False
                yield from () if entry.url in named else (SourceFile(entry.url, entry.size_bytes, entry.mtime_s),)
    if is_empty:
        raise _no_videos(folder)


def _in_tar(uri: str, named: Container[str]) -> Iterator[SourceFile | Failed]:
    """The videos in a tar; all of the tar's own time, since what packs one rarely keeps those of files."""
    tar = to_path(uri)
    found: dict[str, SourceFile | Failed] = {}
    try:
        _, mtime_s = tars.look(tar)
        for each in tars.members(tar):
            found.update(_member(uri, each, mtime_s))
    except OSError as error:
        found[uri] = _problem(tar, error)
    yield from (each for place, each in found.items() if place not in named)


def _member(
    tar_uri: str, each: tars.Member | tars.Refused, mtime_s: float
) -> Iterator[tuple[str, SourceFile | Failed]]:
    """Where a member is and what is there, if it is a video by its name; the tar, of what is wrong with all of it."""
    if each.name is None:
        assert isinstance(each, tars.Refused)
        yield tar_uri, _unusable(tar_uri, each)
    elif os.path.splitext(each.name)[1].lower() in EXTENSIONS:  # noqa: PTH122  # no path
        place = _member_uri(tar_uri, each)
        if isinstance(each, tars.Refused):
            yield place, _unusable(place, each)
        else:
            yield place, SourceFile(place, each.size_bytes, mtime_s)


def _member_uri(tar_uri: str, member: tars.Member | tars.Refused) -> str:
    """Where a member is, as text that any table can hold; of one that is refused, never more than a text."""
    assert member.name is not None
    name = member.name.strip("/") if isinstance(member, tars.Refused) else member.name
    if stores.is_url(tar_uri):
        return f"{tar_uri}/{os.fsencode(name).decode('utf-8', 'replace')}"
    return _as_text(f"{to_path(tar_uri)}/{name}")


def _unusable(uri: str, refused: tars.Refused) -> Failed:
    """What in a tar cannot be used, as a failure that only another tar ends."""
    what = "the tar" if refused.name is None else "the member"
    source = HashedFile(SourceFile(uri, 0, 0.0), "")
    return Failed(source, NotAVideo.kind, f"{what} {refused.why}", "scan", permanent=True)


def _listed(url: str) -> Iterator[stores.Entry | Failed]:
    """What is in a folder of a store, or the problem that it cannot be listed."""
    try:
        yield from stores.entries(url)
    except OSError as error:
        yield _problem(url, error)


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
        if (member := tars.inside(path)) is not None:
            return SourceFile(uri, tars.find(*member).size_bytes, tars.look(member[0])[1])
    except OSError as error:
        return _problem(uri, error)
    if not isinstance(path, Path):
        return _look_at_object(uri)
    try:
        found = os.stat(path)  # noqa: PTH116  # half a second in a million of them
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")  # noqa: TRY301
    except OSError as error:
        return _problem(path, error)
    return SourceFile(uri, found.st_size, found.st_mtime)


def _look_at_object(url: str) -> SourceFile | Failed:
    """As `_look_at`, of an object in a store."""
    try:
        found = stores.look(url)
        if found is None or found.is_folder:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)
    except OSError as error:
        return _problem(url, error)
    return SourceFile(url, found.size_bytes, found.mtime_s)


def now_at(uri: str) -> SourceFile | None:
    """What is at a uri now, or None where no regular file can be seen."""
    found = _look_at(uri)
    return found if isinstance(found, SourceFile) else None


def is_below(uri: str, folder: str) -> bool:
    """Whether a uri lies in a folder."""
    # Both as paths where they are quoted; the slash keeps /videos2 out of /videos.
    inner, outer = (str(to_path(each)) if each.startswith("file://") else each for each in (uri, folder))
    return inner.startswith(outer.rstrip("/") + "/")


def _problem(path: str | AnyPath, error: OSError) -> Failed:
    """A file or folder that could not be looked at, as a failure."""
    source = HashedFile(SourceFile(to_uri(path), 0, 0.0), "")
    return Failed(source, UnreadableFile.kind, f"cannot be read: {said(error)}", "scan", permanent=False)


def said(error: OSError) -> str:
    """What the system or a store said; stores often give no number."""
    return error.strerror or first_line(error)


def opened(uri: str) -> IO[bytes]:
    """A video opened for reading, wherever it lies, a member of a tar too. Raises OSError."""
    place = to_path(uri)
    member = tars.inside(place)
    return stores.open_binary(place) if member is None else tars.open_member(*member)


def is_file(uri: str) -> bool:
    """Whether a video is a file of this machine, which libraries can open by its name."""
    place = to_path(uri)
    return isinstance(place, Path) and tars.inside(place) is None


def fingerprint(file: SourceFile) -> HashedFile:
    """Reads the whole file. Raises UnreadableFile when that fails."""
    digest = xxhash.xxh3_128()
    try:
        with opened(file.uri) as stream:
            while block := stream.read(READ_BYTES):
                digest.update(block)
    except OSError as error:
        raise UnreadableFile(f"cannot be read: {said(error)}") from error
    return HashedFile(file, digest.hexdigest())


def fingerprint_files(files: list[SourceFile | HashedFile]) -> list[HashedFile]:
    """`fingerprint` as a stage; what has been read already passes."""
    return [file if isinstance(file, HashedFile) else fingerprint(file) for file in files]
