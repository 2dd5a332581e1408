"""A vector index whose segments are searched by several processes, of one machine or of many: Ray actors.

Segments are what is dealt out: a clip is in one of them, whoever searches it finds the same scores, and the best of
what all find are the best of all. Every actor opens its own segments and no others, so that an index may be larger
than the memory of a machine. It pays where that is so: on one machine FAISS uses all cores by itself.
"""

# E joint dimension

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

from pipeline import engine, index_files, indexes, stores
from pipeline.archive import Archive
from pipeline.places import Places
from pipeline.vectors import Allowed, Vectors
from schemas.errors import EngineError, InputError

START_S = 300.0  # in which actors must have opened their segments; a busy machine takes minutes to start processes


def dealt(sizes: Iterable[tuple[str, int]], shards: int) -> list[list[str]]:
    """Names of segments for each of so many shards at most, none empty: the largest first, to who has least."""
    hands: list[list[str]] = [[] for _ in range(shards)]
    held = [0] * shards
    for name, clips in sorted(sizes, key=lambda pair: (-pair[1], pair[0])):
        least = held.index(min(held))
        hands[least].append(name)
        held[least] += clips
    return [hand for hand in hands if hand]


@dataclass(frozen=True, slots=True)
class ShardedIndex:
    """An index in actors; asked as a `VectorIndex` is, with the same answers."""

    actors: tuple[Any, ...]
    count: int
    videos_version: int
    is_exact: bool
    places: Places | None

    def search(self, query_E: Vectors, most: int, allowed: Allowed | None = None) -> list[tuple[str, float]]:
        """See `VectorIndex.search`; `allowed` is sent to every actor. Raises EngineError when an actor is no more."""
        ray = engine.start_ray()
        try:
            found = ray.get([actor.search.remote(query_E, most, allowed) for actor in self.actors])
        except ray.exceptions.RayActorError as error:
            raise EngineError("a process that held a part of the index has died; open the index again") from error
        return sorted(chain.from_iterable(found), key=lambda pair: (-pair[1], pair[0]))[:most]

    def close(self) -> None:
        """Ends the actors."""
        ray = engine.start_ray()
        for actor in self.actors:
            ray.kill(actor)


def opened(archive: Archive, space: str, width: int, *, shards: int) -> ShardedIndex:
    """The index of the videos committed now, in so many actors, fewer if it has fewer segments.

    Every machine must see the archive under the name that it has here.
    """
    if shards < 1:
        raise InputError(f"{shards} shards hold nothing; expected at least 1")
    indexes.ensure(archive, space, width)
    folder = archive.index_folder(space) / str(archive.version("videos"))
    whole = index_files.read(folder, only=())
    said = index_files.segments_of(folder)
    ray = engine.start_ray()
    hands = dealt([(each["name"], each["shown"]) for each in said], shards)
    # A core is asked for by none: an actor waits most of the time, and FAISS uses those there are.
    actor = ray.remote(_Shard).options(num_cpus=0, scheduling_strategy="SPREAD")
    actors = tuple(actor.remote(str(folder), hand) for hand in hands)
    try:
        exact = ray.get([each.is_exact.remote() for each in actors], timeout=START_S)
    except (ray.exceptions.RayError, TimeoutError) as error:
        raise EngineError(f"the index in {folder} could not be opened by {len(actors)} processes: {error}") from error
    return ShardedIndex(actors, sum(each["shown"] for each in said), whole.videos_version, all(exact), whole.places)


class _Shard:
    """Some segments of an index, in a process of their own."""

    def __init__(self, folder: str, names: Collection[str]) -> None:
        self.index = index_files.read(stores.to_place(folder), only=names)

    def is_exact(self) -> bool:
        """See `VectorIndex.is_exact`."""
        return self.index.is_exact

    def search(self, query_E: Vectors, most: int, allowed: Allowed | None) -> list[tuple[str, float]]:
        """See `VectorIndex.search`."""
        return self.index.search(query_E, most, allowed)
