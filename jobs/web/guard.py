"""What stands before every request: who may ask, how much at a time, and what every answer says to the browser.

Written as ASGI and not as Starlette's `BaseHTTPMiddleware`, which holds streams back and hides disconnections.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import SimpleCookie
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from jobs.web.limits import Limits

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "footage_session"
OPEN_PATHS = frozenset({"/health", "/ready", "/session", "/"})  # and /static/: the page asks for the token
COUNTED_PATHS = frozenset({"/search", "/classify", "/preview"})  # what computes: so many at a time
RETRY_AFTER_S = 1
POLICY = (
    "default-src 'none'; img-src 'self' data: blob:; media-src 'self' blob:; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


def problem(status: int, title: str, detail: str, **more: Any) -> dict[str, Any]:
    """An error as RFC 9457 has it."""
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}


class Metrics:
    """Counts for Prometheus, of one app: a registry of its own, since tests make several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("footage_requests", "Requests", ["route", "status"], registry=self.registry)
        self.seconds = Histogram("footage_request_seconds", "Time to the answer", ["route"], registry=self.registry)
        self.under_way = Gauge("footage_requests_under_way", "Requests that compute now", registry=self.registry)
        self.clips = Gauge("footage_clips", "Clips that can be found", registry=self.registry)
        self.videos = Gauge("footage_videos", "Videos in the snapshot served", registry=self.registry)

    def text(self, clips: int, videos: int) -> bytes:
        """All of it as Prometheus reads it, with how much is served now."""
        self.clips.set(clips)
        self.videos.set(videos)
        return generate_latest(self.registry)


class Guard:
    """The app behind token, bounds and headers."""

    def __init__(self, app: App, limits: Limits, metrics: Metrics) -> None:
        self._app, self._limits, self._metrics = app, limits, metrics
        self._places = asyncio.Semaphore(limits.at_a_time)
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500

        async def with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(message, scope["path"])
            await send(message)

        try:
            await self._guarded(scope, receive, with_headers)
        finally:
            # By route and not by path: there are as many paths as clips, and each would stay in memory.
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - began)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._limits.knows(_header(scope, b"host")):
            detail = f"this is not {_header(scope, b'host')!r}; expected the address that the server was started with"
            await _answer(send, problem(421, "Misdirected Request", detail))
        elif not self._may_pass(scope):
            detail = "this server asks for a token; expected `Authorization: Bearer TOKEN`, or a session"
            await _answer(send, problem(401, "Unauthorized", detail), {"www-authenticate": "Bearer"})
        elif (size := _header(scope, b"content-length")).isdigit() and int(size) > self._limits.body_bytes:
            detail = f"the request has {size} bytes; expected at most {self._limits.body_bytes}"
            await _answer(send, problem(413, "Content Too Large", detail))
        elif "/" + scope["path"].split("/")[1] not in COUNTED_PATHS:
            await self._app(scope, _bounded(receive, self._limits.body_bytes), send)
        elif self._waiting >= self._limits.at_a_time:
            detail = f"{2 * self._limits.at_a_time} questions are under way; ask again in {RETRY_AFTER_S} s"
            await _answer(send, problem(429, "Too Many Requests", detail), {"retry-after": str(RETRY_AFTER_S)})
        else:
            await self._counted(scope, _bounded(receive, self._limits.body_bytes), send)

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        """When there is a place."""
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
        self._metrics.under_way.inc()
        try:
            await self._app(scope, receive, send)
        finally:
            self._metrics.under_way.dec()
            self._places.release()

    def _may_pass(self, scope: Scope) -> bool:
        if self._limits.token is None or scope["path"] in OPEN_PATHS or scope["path"].startswith("/static/"):
            return True
        kind, _, token = _header(scope, b"authorization").partition(" ")
        if kind.lower() == "bearer":
            return self._limits.admits(token.strip())
        session = SimpleCookie(_header(scope, b"cookie")).get(COOKIE)
        return session is not None and self._limits.admits(session.value)


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def _add_headers(message: Message, path: str) -> None:
    have = {key for key, _ in message["headers"]}
    headers = [(key.encode(), value.encode()) for key, value in HEADERS.items() if key.encode() not in have]
    if b"cache-control" not in have:
        kept = b"no-cache" if path.startswith("/static/") or path == "/" else b"no-store"
        headers.append((b"cache-control", kept))
    message["headers"] = [*message["headers"], *headers]


def _bounded(receive: Receive, most_bytes: int) -> Receive:
    """The body as it comes; one that does not say how long it is ends where it is too long."""
    left = most_bytes

    async def counted() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        # As if the client had gone: what it began cannot be answered, and reading on would fill the memory.
        return {"type": "http.disconnect"} if left < 0 else message

    return counted


async def _answer(send: Send, said: dict[str, Any], headers: dict[str, str] | None = None) -> None:
    body = json.dumps(said).encode()
    sent = {"content-type": "application/problem+json", "content-length": str(len(body)), **(headers or {})}
    pairs = [(key.encode(), value.encode()) for key, value in sent.items()]
    await send({"type": "http.response.start", "status": said["status"], "headers": pairs})
    await send({"type": "http.response.body", "body": body})
