"""Videos in tar files, as WebDataset has them: each is a stretch of the tar's bytes, read where it lies.

A tar is looked upon as a folder: `shard.tar/key.mp4` is the member `key.mp4` of `shard.tar`, here or in a store.
Nothing is ever unpacked, and no name of a member becomes that of a file. A tar is hostile input: what links, has holes,
is cut off, is compressed, or has a name that leads elsewhere is refused with its reason.
"""

from __future__ import annotations

import errno
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any

from pipeline import stores
from pipeline.stores import AnyPath, Closing

ENDING = ".tar"
# Of what tarfile reads at a time: a header is 512 bytes, a long name some thousands. A hostile header says gigabytes.
MOST_BYTES = 1 << 20
INDEXES = 4  # of tars that a process remembers: units of one tar come one after the other
# Where members of tars in a store begin is asked header by header: reading ahead would read all of them.
NO_READ_AHEAD = {"cache_type": "none"}


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar: `size_bytes` from `offset` on."""

    name: str
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Something in a tar that cannot be used, and why; `name` is None where the tar itself is meant."""

    name: str | None
    why: str


def is_named_so(name: str) -> bool:
    """Whether a name is that of a tar."""
    return name.lower().endswith(ENDING)


def inside(place: AnyPath) -> tuple[AnyPath, str] | None:
    """The tar that a path leads into, and the name of the member in there; None for any other path.

    Raises OSError where a store does not tell.
    """
    if f"{ENDING}/" not in str(place).lower():
        return None
    for above in place.parents:
        if is_named_so(above.name) and _is_file(above):
            return above, str(place)[len(str(above)) + 1 :]
    return None


def _is_file(place: AnyPath) -> bool:
    """Whether there is a file, and no folder."""
    if isinstance(place, Path):
        return place.is_file()
    found = stores.look(str(place))
    return found is not None and not found.is_folder


def members(tar: AnyPath) -> Iterator[Member | Refused]:
    """The files in a tar, in order, and what in there cannot be used. Raises OSError where it cannot be read."""
    with _headers(tar) as headers:
        try:
            with tarfile.open(fileobj=headers, mode="r:") as opened:  # type: ignore[call-overload]  # what it needs
                yield from _each(opened, headers.size_bytes)
        # tarfile's own errors, and what odd numbers and texts in headers provoke in it.
        except (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError) as error:
            yield Refused(None, _why_no_tar(headers, error))


def _each(opened: tarfile.TarFile, size_bytes: int) -> Iterator[Member | Refused]:
    """`members` of an open tar."""
    while (info := opened.next()) is not None:
        opened.members = []  # type: ignore[attr-defined]  # it would keep them all
        # A size below nothing leads back: to the same header, for ever.
        if info.size < 0 or opened.offset <= info.offset:
            yield Refused(None, "has a header that leads back")
            return
        if info.isdir():
            continue
        name = info.name.removeprefix("./")
        reason = _why_not(info, name, size_bytes)
        yield Refused(name, reason) if reason else Member(name, info.offset_data, info.size)


def _why_not(info: tarfile.TarInfo, name: str, size_bytes: int) -> str:
    """Why a member cannot be used, in words; nothing if it can."""
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or str(path) != name or "\0" in name:
        return "has a name that leads elsewhere"
    if info.issym() or info.islnk():
        return "is a link, and no file"
    if not info.isreg():
        return "is no regular file"
    if info.issparse():
        return "has holes (a sparse file): pack it without --sparse"
    if info.offset_data + info.size > size_bytes:
        return "is cut off: the tar ends before it does"
    return ""


def _why_no_tar(headers: _Headers, error: Exception) -> str:
    """Why a tar cannot be read, or not to its end."""
    headers.seek(0)
    start = headers.read(6)
    packed = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
    for magic, kind in packed.items():
        if start.startswith(magic):
            return f"is compressed ({kind}), so that its members cannot be read where they lie: unpack it, or pack anew"
    return f"is no sound tar: {str(error) or type(error).__name__}"


# --- reading


class _Headers(Closing):
    """A tar as tarfile reads it: no more at a time than headers need."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.size_bytes = int(stream.seek(0, os.SEEK_END))
        stream.seek(0)

    def read(self, size: int = -1) -> bytes:
        """As of a file. Raises ReadError for what no header needs."""
        if not 0 <= size <= MOST_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return bytes(self._stream.read(size))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of a file."""
        return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        """As of a file."""
        return int(self._stream.tell())


def _headers(tar: AnyPath) -> _Headers:
    """A tar opened for its headers."""
    if isinstance(tar, Path):
        return _Headers(tar.open("rb", buffering=0))
    return _Headers(stores.open_binary(tar, **NO_READ_AHEAD))


class _Section(Closing):
    """A member's bytes as a file of their own."""

    def __init__(self, stream: Any, member: Member) -> None:
        self.name = member.name  # FFmpeg looks at its ending
        self._stream, self._start, self._size, self._at = stream, member.offset, member.size_bytes, 0

    def read(self, size: int = -1) -> bytes:
        """As of a file."""
        left = max(0, self._size - self._at)
        self._stream.seek(self._start + self._at)
        found = bytes(self._stream.read(left if size < 0 else min(size, left)))
        self._at += len(found)
        return found

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of a file; but before its start a number below 0, which FFmpeg takes for an error and an exception not."""
        place = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence] + offset
        if place < 0:
            return -errno.EINVAL
        self._at = place
        return place

    def tell(self) -> int:
        """As of a file."""
        return self._at


def open_member(tar: AnyPath, name: str) -> IO[bytes]:
    """A member opened for reading. Raises OSError where it is not there, or not usable."""
    member = find(tar, name)
    return _Section(stores.open_binary(tar), member)  # type: ignore[return-value]  # what readers use of one


def find(tar: AnyPath, name: str) -> Member:
    """Where a member lies. Raises OSError where it does not."""
    found = _index(str(tar), *look(tar)).get(name)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, "the tar has no such member", f"{tar}/{name}")
    return found


def look(tar: AnyPath) -> tuple[int, float]:
    """Size and time of a tar. Raises OSError where there is none."""
    if isinstance(tar, Path):
        found = tar.stat()
        return found.st_size, found.st_mtime
    entry = stores.look(str(tar))
    if entry is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(tar))
    return entry.size_bytes, entry.mtime_s


@lru_cache(maxsize=INDEXES)
def _index(tar: str, _size_bytes: int, _mtime_s: float) -> dict[str, Member]:
    """The members of a tar as it is now; of two of one name the later, as in unpacking."""
    return {each.name: each for each in members(stores.to_place(tar)) if isinstance(each, Member)}
