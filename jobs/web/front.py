"""What stands before replicas: it hands whole requests on, and answers for a replica that died.

Files of videos it reads itself, once a replica has said where they are: what is handed over is whole, and a film would
have to be held whole. So are the counts its own, since the replicas each see a part. All else is the app's, wherever
that runs.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, Response

from jobs.web import answers, media
from jobs.web.guard import RETRY_AFTER_S, App, Message, Metrics, Receive, Scope, Send, problem
from schemas.errors import NotFound

LOG = logging.getLogger("footage.serve")
MEDIA = re.compile(f"/media/({answers.VIDEO_ID.strip('^$')})")
MEDIA_ROUTE = "/media/{video_id}"
# Of a request's scope; what else a server puts there may not leave its process.
PASSED_ON = frozenset({"type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string"})
PASSED_ON |= {"root_path", "headers", "client", "server"}
GRACE_S = 10.0  # the app gives up by itself; so much longer may a request wait for a replica to be there

# Calls a method of some replica by its name. Raises NoReplica.
Ask = Callable[..., Awaitable[Any]]


class NoReplica(Exception):
    """The replica died, or there is none to ask."""


class Reply(NamedTuple):
    """A whole answer of the app, and the route that it was given by."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    route: str


async def reply_of(app: App, scope: Scope, body: bytes) -> Reply:
    """What an app answers to a request."""
    sent: list[Message] = []
    came: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if not came:
            await asyncio.Event().wait()  # nobody leaves: who asked is at the front
        return came.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    try:
        await app(scope, receive, send)
    except Exception:
        if not sent:  # else it is answered, and raised again for a server's log
            raise
    content = b"".join(message.get("body", b"") for message in sent[1:])
    return Reply(sent[0]["status"], list(sent[0]["headers"]), content, getattr(scope.get("route"), "path", "other"))


class Front:
    """An app that asks replicas. It belongs behind a `Guard`."""

    def __init__(self, ask: Ask, metrics: Metrics, seconds: float) -> None:
        self._ask, self._metrics, self._seconds = ask, metrics, seconds + GRACE_S

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        try:
            response = await asyncio.wait_for(self._response(scope, receive), self._seconds)
        except (NoReplica, TimeoutError) as error:
            LOG.warning("%s %s: %s", scope["method"], scope["path"], error or "no replica in time")
            detail = f"the process that was to answer is not there; another one is; ask again in {RETRY_AFTER_S} s"
            response = _problem(503, "Service Unavailable", detail, {"retry-after": str(RETRY_AFTER_S)})
        except Exception:
            LOG.exception("%s %s failed", scope["method"], scope["path"])
            response = _problem(500, "Internal Server Error", "this is a bug of the server; its log has more")
        await response(scope, receive, send)

    async def _response(self, scope: Scope, receive: Receive) -> Response:
        """The answer: whole, but for files of videos."""
        if scope["path"] == "/metrics":
            scope["route"] = SimpleNamespace(path="/metrics")
            return Response(self._metrics.text(*await self._ask("counts")), media_type=CONTENT_TYPE_LATEST)
        if (found := MEDIA.fullmatch(scope["path"])) and (file := await self._file(scope, found[1])):
            scope["route"] = SimpleNamespace(path=MEDIA_ROUTE)
            return file
        body = await _body(receive)
        if body is None:
            return _problem(413, "Content Too Large", "the request is too large, or it was broken off")
        reply: Reply = await self._ask("answer", {name: scope[name] for name in PASSED_ON & scope.keys()}, body)
        scope["route"] = SimpleNamespace(path=reply.route)
        response = Response(reply.body, reply.status)
        response.raw_headers = reply.headers
        return response

    async def _file(self, scope: Scope, video_id: str) -> Response | None:
        """The file of a video, or the range of it that is asked for; None where the app is to say why not."""
        uri = await self._ask("place_of", video_id)
        if uri is None or scope["method"] != "GET":
            return None
        asked = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"range"), None)
        try:
            return await asyncio.to_thread(media.response, uri, asked)
        except NotFound:
            return None


async def _body(receive: Receive) -> bytes | None:
    """The whole body of a request; None where it ended before."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _problem(status: int, title: str, detail: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(problem(status, title, detail), status, headers, media_type="application/problem+json")
