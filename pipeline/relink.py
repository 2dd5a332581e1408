"""Which file holds which content: moved files keep their clips, and content that lies in several places has one set.

A content is known by its fingerprint. At most one video of a space *holds* it: the one that is `ok` or `partial`,
whose clips are shown. Every other file of the same content has a row of its own with the status `duplicate`, which
names its holder by the fingerprint and by nothing else: no pointer can dangle, no column had to be added, and search,
which goes by clips, shows such content once. When the holder's file goes away or changes, its video moves to where the
content still is, with its id, revision and clips; a duplicate there is retired in the same commit. Nothing is decoded.

All of it is decided here, purely, from what was read and what is known.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from pipeline import plan
from schemas.records import HashedFile, SourceFile, VideoRow

SHOWN = ("ok", "partial")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a run has found out before it decides. `known` are the rows that matter, by uri."""

    known: Mapping[str, VideoRow]
    read: tuple[HashedFile, ...]  # in the order of their uris
    left: Collection[str]  # uris that no longer hold what they did: the file is gone, or of another size
    now_at: Callable[[str], SourceFile | None]  # what is at a uri that this run has not looked at


@dataclass(frozen=True, slots=True)
class Relinked:
    """What becomes of every file that was read, and of the videos whose files they were or are."""

    same: tuple[tuple[VideoRow, SourceFile], ...]  # touched: the row as it was and the file as it is
    moved: tuple[tuple[VideoRow, SourceFile], ...]  # a holder, and the file that has its content now
    duplicates: tuple[tuple[HashedFile, VideoRow], ...]  # a file, and the holder of its content
    fresh: tuple[HashedFile, ...]  # to be indexed
    copies: Mapping[str, tuple[HashedFile, ...]]  # by fingerprint, further files of what is fresh
    retired: tuple[VideoRow, ...]  # rows whose file belongs to a moved video now, or whose holder is no more

    @property
    def moved_ids(self) -> set[str]:
        """The videos that have another place."""
        return {row.video_id for row, _ in self.moved}


def relink(found: Evidence) -> Relinked:
    """Decides for all files at once: a run may see a swap of two names, a move over another file, a copied folder."""
    by_uri = {source.file.uri: source for source in found.read}
    same = {uri: source for uri, source in by_uri.items() if plan.is_same_content(source, found.known.get(uri))}
    # A holder that is tried again, because bad luck cost it some clips, stays its own holder.
    again = {
        uri: source
        for uri, source in by_uri.items()
        if uri not in same and (row := found.known.get(uri)) and row.fingerprint == source.fingerprint and _holds(row)
    }
    claims: dict[str, list[HashedFile]] = defaultdict(list)
    for uri, source in by_uri.items():
        if uri not in same and uri not in again:
            claims[source.fingerprint].append(source)
    holders = {row.fingerprint: row for row in found.known.values() if _holds(row)}
    moved: list[tuple[VideoRow, SourceFile]] = []
    retired: list[VideoRow] = []
    for content, holder in list(holders.items()):
        if not (claims.get(content) or _copies_of(holder, found)) or _stays(holder, found, by_uri):
            continue
        heirs = [file for row in _copies_of(holder, found) if (file := _still(row, found, by_uri))]
        heirs += [source.file for source in claims.get(content, ())]
        if heirs:
            moved.append((holder, heirs[0]))
            continue
        # Whoever has a copy where this run does not look will be read when it does.
        retired += [row for row in _copies_of(holder, found) if row.uri not in found.left]
        del holders[content]
    taken_over = {file.uri for _, file in moved}
    retired += _displaced(moved, found)
    fresh, duplicates, copies = _share_out(claims, holders, taken_over)
    return Relinked(
        same=tuple((found.known[uri], source.file) for uri, source in same.items() if uri not in taken_over),
        moved=tuple(moved),
        duplicates=tuple(duplicates),
        fresh=(*again.values(), *fresh),
        copies=copies,
        retired=tuple(retired),
    )


def _holds(row: VideoRow) -> bool:
    return row.status in SHOWN


def _copies_of(holder: VideoRow, found: Evidence) -> list[VideoRow]:
    """The duplicates of a holder's content that are known, in the order of their uris."""
    rows = [row for row in found.known.values() if row.status == "duplicate" and row.fingerprint == holder.fingerprint]
    return sorted(rows, key=lambda row: row.uri)


def _stays(row: VideoRow, found: Evidence, by_uri: Mapping[str, HashedFile]) -> bool:
    """Whether a holder's file still holds its content, for all that is known: when in doubt it does."""
    if row.uri in found.left:
        return False
    if row.uri in by_uri:
        return by_uri[row.uri].fingerprint == row.fingerprint
    return found.now_at(row.uri) is not None


def _still(row: VideoRow, found: Evidence, by_uri: Mapping[str, HashedFile]) -> SourceFile | None:
    """The file of a duplicate if it still is one, for certain."""
    if row.uri in by_uri:
        source = by_uri[row.uri]
        return source.file if source.fingerprint == row.fingerprint else None
    file = None if row.uri in found.left else found.now_at(row.uri)
    return file if file == SourceFile(row.uri, row.size_bytes, row.mtime_s) else None


def _displaced(moved: Iterable[tuple[VideoRow, SourceFile]], found: Evidence) -> list[VideoRow]:
    """The rows at places that a moved video has taken, unless they moved as well."""
    pairs = list(moved)
    away = {row.video_id for row, _ in pairs}
    rows = [found.known[file.uri] for _, file in pairs if file.uri in found.known]
    return [row for row in rows if row.video_id not in away and row.status != "gone"]


def _share_out(
    claims: Mapping[str, list[HashedFile]], holders: Mapping[str, VideoRow], taken_over: set[str]
) -> tuple[list[HashedFile], list[tuple[HashedFile, VideoRow]], dict[str, tuple[HashedFile, ...]]]:
    """Files that no moved video took: to be indexed, duplicates of a holder, and further copies of the first."""
    fresh: list[HashedFile] = []
    duplicates: list[tuple[HashedFile, VideoRow]] = []
    copies: dict[str, tuple[HashedFile, ...]] = {}
    for content, sources in claims.items():
        rest = [source for source in sources if source.file.uri not in taken_over]
        if content in holders:
            duplicates += [(source, holders[content]) for source in rest]
        elif rest:
            fresh.append(rest[0])
            copies[content] = tuple(rest[1:])
    return fresh, duplicates, copies


def trusted(found: Iterable[SourceFile], known: Iterable[VideoRow], left: Collection[str]) -> list[HashedFile]:
    """Files taken unread for ones that left their place, because size and time are the same and of no other file."""
    by_look: dict[tuple[int, float], list[SourceFile]] = defaultdict(list)
    for file in found:
        by_look[file.size_bytes, file.mtime_s].append(file)
    gone: dict[tuple[int, float], list[VideoRow]] = defaultdict(list)
    for row in known:
        if row.uri in left and row.status in (*SHOWN, "duplicate"):
            gone[row.size_bytes, row.mtime_s].append(row)
    return [
        HashedFile(by_look[look][0], rows[0].fingerprint)
        for look, rows in gone.items()
        if len(rows) == 1 and len(by_look.get(look, ())) == 1
    ]
