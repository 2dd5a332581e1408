"""The app in several processes, by Ray Serve: the only place that knows it.

Each replica holds the whole app over a snapshot of its own. Serve starts them, looks after them, replaces those that
died, and sends each request to one that is not busy; texts of requests that are at a replica at the same time go
through the model together. Serve's own HTTP proxy stays off: it has answers of its own, without a word of ours, to a
replica's death above all, and paths that ask for no token. Requests come through `front`, in the command's process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from jobs.web.front import Ask, NoReplica, Reply, reply_of
from jobs.web.guard import Scope
from pipeline import engine, interrupts, text_batches
from pipeline.service import Service
from pipeline.text_batches import Asked, TextEncoder
from schemas.errors import EngineError, FootageError, InputError, NotFound
from xclip_core import Encoder

if TYPE_CHECKING:
    from fastapi import FastAPI

# What a replica builds the app by, with what its service is to encode texts by.
Build = Callable[[TextEncoder], "FastAPI"]
QUIET = {"log_level": "ERROR", "enable_access_log": False}
# At a replica at a time, beyond what the front's guard counts: pictures, pages, videos' rows.
ONGOING = 256
HEALTH_PERIOD_S = 1.0  # a replica that died is missed after that; the next takes as long as a model takes to load
HEALTH_TIMEOUT_S = 60.0  # a busy machine is no death
END_S = 5.0  # of replicas on others' clusters, to finish what they are at


class Together:
    """Encodes texts of calls that wait at the same time in one pass of the model. Made in the loop that it works in."""

    def __init__(self, most: int) -> None:
        """`most` calls go into a pass."""
        from ray import serve

        self._loop = asyncio.get_running_loop()
        # Its own thread: those of the loop's pool may all be waiting for texts.
        self._thread = ThreadPoolExecutor(1, "texts")
        # Nobody waits for company: what comes while a pass is under way goes into the next.
        self._many: Any = serve.batch(max_batch_size=most, batch_wait_timeout_s=0.0)(self._encoded)

    def __call__(self, model: Encoder, texts: Sequence[str]) -> Tensor:
        """Raw vectors K x E; from other threads than the loop's. Raises what the model does."""
        found: Tensor | FootageError = asyncio.run_coroutine_threadsafe(
            self._many((model, tuple(texts))), self._loop
        ).result()
        if isinstance(found, FootageError):
            raise found
        return found

    async def _encoded(self, asked: list[Asked]) -> list[Tensor | FootageError]:
        return await self._loop.run_in_executor(self._thread, text_batches.encoded_together, asked)


class Replica:
    """One process with the app, as Serve starts it."""

    async def __init__(self, build: Build, batch: int, threads: int) -> None:  # type: ignore[misc]  # Serve awaits it
        torch.set_num_threads(threads)
        self._app = await asyncio.to_thread(build, Together(batch))
        self._alive = self._app.router.lifespan_context(self._app)
        await self._alive.__aenter__()

    async def answer(self, scope: Scope, body: bytes) -> Reply:
        """What the app answers to a request."""
        return await reply_of(self._app, scope, body)

    async def place_of(self, video_id: str) -> str | None:
        """Where the file of a video is; None of a video that is not there."""
        try:
            row = await asyncio.to_thread(self._service.current.video, video_id)
        except NotFound:
            return None
        return row.uri

    async def counts(self) -> tuple[int, int]:
        """Clips that can be found, and videos."""
        current = self._service.current
        return current.corpus.index.count, current.videos.num_rows

    @property
    def _service(self) -> Service:
        service: Service = self._app.state.service
        return service


@contextmanager
def running(build: Build, *, replicas: int, batch: int, on_gpu: bool) -> Iterator[Ask]:
    """So many replicas, until the block ends; how one of them is asked.

    `on_gpu` lets them share the cluster's GPUs, if it has any. Raises EngineError when they cannot be started.
    """
    is_ours = not os.environ.get("RAY_ADDRESS")
    engine.start_ray()  # else Serve would, with a dashboard and words of its own
    gpus = engine.machines("ray").gpus if on_gpu else 0
    name = f"footage-{os.getpid()}"  # a cluster may have several servers
    options = {"num_cpus": 0, "num_gpus": min(1.0, gpus / replicas)}
    threads = max(1, (os.cpu_count() or 1) // replicas)
    try:
        yield _started(name, (build, batch, threads), replicas, options)
    finally:
        _end(name, is_ours=is_ours)


def _started(name: str, given: tuple[Build, int, int], replicas: int, options: dict[str, float]) -> Ask:
    """Starts an application of Serve, and waits until it can be asked."""
    with warnings.catch_warnings(), interrupts.kept_from_others():
        warnings.simplefilter("ignore")  # Ray's own, on what it will change one day
        serve = _library()
        serve.start(proxy_location="Disabled", logging_config=QUIET)
        deployment = serve.deployment(
            Replica,
            name="replica",
            num_replicas=replicas,
            max_ongoing_requests=ONGOING,
            ray_actor_options=options,
            health_check_period_s=HEALTH_PERIOD_S,
            health_check_timeout_s=HEALTH_TIMEOUT_S,
            graceful_shutdown_timeout_s=END_S,
            logging_config=QUIET,
        )
        try:
            handle = serve.run(deployment.bind(*given), name=name, route_prefix=None)
        except RuntimeError as error:
            raise EngineError(f"the replicas cannot be started: {error}") from error
    return _asking(handle)


def _library() -> Any:
    """Ray Serve, which says nothing. Raises InputError where a library that it needs is missing."""
    try:
        from ray import serve
    except ImportError as error:
        raise InputError(
            f"--replicas needs more libraries ({error.name}); install them with: pip install 'footage[serve]'"
        ) from error
    logging.getLogger("ray.serve").setLevel(logging.CRITICAL)
    return serve


def _asking(handle: Any) -> Ask:
    """A handle's methods, with Serve's errors as one of ours."""
    from ray.exceptions import RayError, RayTaskError
    from ray.serve.exceptions import RayServeException

    async def ask(method: str, *given: Any) -> Any:
        try:
            return await getattr(handle, method).remote(*given)
        except RayTaskError:  # a bug in our own code, there
            raise
        except (RayError, RayServeException) as error:
            raise NoReplica(f"a replica is gone: {type(error).__name__}") from error

    return ask


def _end(name: str, *, is_ours: bool) -> None:
    """Ends the replicas; and Ray, where it was started for them."""
    ray = engine.start_ray()
    if not is_ours:
        from ray import serve

        others = set(serve.status().applications) - {name}
        serve.delete(name) if others else serve.shutdown()
    ray.shutdown()
