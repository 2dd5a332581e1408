"""Places on this machine and in object stores, by one kind of path. The only place that knows fsspec and UPath.

A place with a scheme (`s3://bucket/videos`) is a `UPath`; anything else is a plain `Path`, so that what is local pays
nothing. Credentials and addresses come from where each store's own tools look for them (`AWS_ACCESS_KEY_ID`,
`AWS_ENDPOINT_URL` ...): four libraries open the same store, and that is the one place all of them read.
"""

from __future__ import annotations

import errno
import math
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self, TypeAlias

from pyarrow import fs
from upath import UPath

from schemas.errors import InputError, first_line

Remote: TypeAlias = UPath
AnyPath: TypeAlias = Path | Remote

URL = re.compile(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]+://")  # two letters at least: C:// is a drive
# Which package of PyPI opens what, for those who lack it; each is also an extra of this package.
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
# A listing that was kept would show an archive as it was before another process wrote to it.
OPTIONS = {"use_listings_cache": False}
# What the stores call the time when an object was written.
TIMES = ("mtime", "LastModified", "last_modified", "updated")

LISTINGS = 5  # of a folder that changes while it is listed


class Unreached(OSError):
    """A store could not be asked, or broke off: nothing is known of what was asked for."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder in a store."""

    url: str
    is_folder: bool
    size_bytes: int
    mtime_s: float  # since 1970; 0 where the store does not tell


def is_url(place: str | AnyPath) -> bool:
    """Whether a place is in a store, and not a path of this machine."""
    return isinstance(place, UPath) or bool(URL.match(str(place)))


def to_place(place: str | AnyPath) -> AnyPath:
    """The absolute path of a place, links left as they are; nothing is opened.

    Raises InputError for a scheme that is not known, or whose package is not installed.
    """
    if not is_url(place):
        return Path(os.path.abspath(str(place)))  # noqa: PTH100  # resolve() would follow links
    scheme, _, path = str(place).partition("://")
    try:
        found: UPath = UPath(f"{scheme}://{path.strip('/')}", **OPTIONS)  # type: ignore[call-overload]  # any scheme's
        _ = found.fs  # opened now, so that what is missing is told here
    except ImportError as error:
        package = PACKAGES.get(scheme, "its fsspec package")
        raise InputError(f"{place} needs {package}, which is not installed; run: pip install {package}") from error
    except ValueError as error:
        known = ", ".join(f"{name}://" for name in ("s3", "gs", "az"))
        raise InputError(f"{place} has a scheme that is not known; expected {known} or another of fsspec's") from error
    return found


# --- looking


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turns whatever a store's library raises, but for what is plainly an answer, into Unreached."""
    try:
        yield
    except (FileNotFoundError, PermissionError, NotADirectoryError, Unreached):
        raise
    except Exception as error:  # botocore, aiohttp, google-auth ...: each has a tree of its own
        raise Unreached(errno.EIO, f"the store does not answer ({first_line(error)})", url) from error


def look(url: str) -> Entry | None:
    """What is at a URL; None if nothing is. Raises Unreached, or PermissionError."""
    place = _remote(url)
    with suppress(FileNotFoundError), reaching(url):
        return _entry(place, place.fs.info(place.path))
    return None


def entries(url: str) -> Iterator[Entry]:
    """What is in a folder of a store, in no order. Raises OSError when it cannot be listed."""
    place = _remote(url)
    with reaching(url):
        found = place.fs.ls(place.path, detail=True)
    # Some stores keep an empty object in the place of a folder, and list it in itself.
    yield from (_entry(place, info) for info in found if info["name"].strip("/") != place.path.strip("/"))


def matches(pattern: UPath) -> list[AnyPath]:
    """The files in a store that a glob stands for, sorted."""
    with reaching(str(pattern)):
        found = pattern.fs.glob(pattern.path, detail=True)
    return [to_place(_entry(pattern, found[name]).url) for name in sorted(found) if found[name]["type"] == "file"]


def _remote(url: str) -> UPath:
    """A URL as a path."""
    place = to_place(url)
    assert isinstance(place, UPath), f"{url} is a path of this machine"
    return place


def _entry(place: UPath, info: dict[str, Any]) -> Entry:
    """What fsspec tells of something in the same store as `place`."""
    time = next((info[name] for name in TIMES if info.get(name) is not None), 0.0)
    mtime_s = time.timestamp() if hasattr(time, "timestamp") else float(time)
    name = info["name"] if URL.match(info["name"]) else f"{place.protocol}://{info['name'].strip('/')}"
    return Entry(name, info["type"] == "directory", int(info.get("size") or 0), mtime_s)


def open_binary(place: AnyPath, **options: Any) -> IO[bytes]:
    """A file opened for reading, anywhere; `options` are fsspec's, of stores. Raises OSError."""
    if isinstance(place, Path):
        return place.open("rb")
    with reaching(str(place)):
        return _Reader(str(place), place.open("rb", **options))  # type: ignore[return-value]  # what readers use of one


class Closing:
    """What is read through a stream and closes it at the end."""

    _stream: Any

    def close(self) -> None:
        """As of a file."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Reader(Closing):
    """A file in a store, whose library's errors become OSError."""

    def __init__(self, url: str, stream: Any) -> None:
        self.name = url  # FFmpeg looks at its ending
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        """As of a file."""
        with reaching(self.name):
            return bytes(self._stream.read(size))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of a file; but before its start a number below 0, which FFmpeg takes for an error and an exception not."""
        starts = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self._stream.size}
        place = starts[whence] + offset
        return int(self._stream.seek(place)) if place >= 0 else -errno.EINVAL

    def tell(self) -> int:
        """As of a file."""
        return int(self._stream.tell())


# --- folders of an archive


def arrow(place: AnyPath) -> tuple[fs.FileSystem, str]:
    """Arrow's file system for a place, and the place's name in it; Arrow's own for the stores that it knows."""
    if isinstance(place, Path):
        return fs.LocalFileSystem(), str(place)
    try:
        return tuple(fs.FileSystem.from_uri(str(place)))
    except (ValueError, NotImplementedError):  # fsspec's, which is Python
        return fs.PyFileSystem(fs.FSSpecHandler(place.fs)), place.path


def _listed(system: fs.FileSystem, selector: fs.FileSelector) -> list[fs.FileInfo]:
    """What is in a folder. One that another process makes or removes while Arrow looks is an error to it: once more."""
    for _ in range(LISTINGS - 1):
        with suppress(FileNotFoundError):
            return list(system.get_file_info(selector))
    return list(system.get_file_info(selector))


def sizes(folder: AnyPath, *, before_s: float = math.inf) -> dict[str, int]:
    """Bytes of every file below a folder, by its path in there; empty if there is no such folder.

    `before_s`, in seconds since 1970, leaves out what was written since, and what nobody knows the time of.
    """
    system, root = arrow(folder)
    found = _listed(system, fs.FileSelector(root, recursive=True, allow_not_found=True))
    files = (info for info in found if info.type == fs.FileType.File)
    if before_s < math.inf:
        files = (info for info in files if info.mtime_ns is not None and info.mtime_ns < before_s * 1e9)
    return {info.path[len(root) :].lstrip("/"): info.size for info in files}


def folders(folder: AnyPath) -> list[str]:
    """The names of the folders in a folder, sorted; empty if there is no such folder."""
    system, root = arrow(folder)
    found = _listed(system, fs.FileSelector(root, allow_not_found=True))
    return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)


def make_folder(folder: AnyPath) -> None:
    """Makes a folder and those above it; stores have none to make."""
    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)


def remove_tree(folder: AnyPath) -> None:
    """Removes a folder with all that is in it, as far as that can be done."""
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=True)
        return
    with suppress(OSError):
        folder.fs.rm(folder.path, recursive=True)


@contextmanager
def local_copy(file: AnyPath) -> Iterator[Path]:
    """A file under a name that C libraries can open: itself, or a copy for as long as this lasts. Raises OSError."""
    if isinstance(file, Path):
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="footage-") as folder:
        copy = Path(folder, file.name)
        with reaching(str(file)):
            file.fs.get_file(file.path, str(copy))
        yield copy


def upload(local: Path, target: UPath) -> None:
    """Puts a file of this machine into a store, whole or not at all."""
    with reaching(str(target)):
        target.fs.put_file(str(local), target.path)


def copy(source: AnyPath, target: AnyPath) -> None:
    """Another name for a file that nobody changes, in the same place: a link where there are such, else a copy."""
    if isinstance(source, Path) and isinstance(target, Path):
        try:
            target.hardlink_to(source)
        except OSError:  # a file system without links
            shutil.copyfile(source, target)
        return
    assert not isinstance(source, Path)
    assert not isinstance(target, Path)
    with reaching(str(target)):
        target.fs.copy(source.path, target.path)


def replace(local: Path, target: AnyPath) -> None:
    """Puts a file of this machine in the place of another, whole or not at all."""
    if not isinstance(target, Path):
        upload(local, target)
        return
    draft = target.with_name(f".{target.name}-{uuid.uuid4().hex}")
    shutil.copyfile(local, draft)
    draft.replace(target)


def delta_options(place: str | AnyPath) -> dict[str, str] | None:
    """What Delta must be told of a store beyond its environment: that an endpoint without TLS is meant."""
    is_plain = is_url(place) and os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    return {"allow_http": "true"} if is_plain else None
