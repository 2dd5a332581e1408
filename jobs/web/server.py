"""The HTTP server under the app: from a bound socket to an end that no connection holds up."""

from __future__ import annotations

import asyncio
import socket

import uvicorn

from jobs.web.guard import App

GRACE_S = 8  # for answers that are under way at the end: Docker kills after 10 s, Kubernetes after 30
KEEP_ALIVE_S = 30


class Server(uvicorn.Server):
    """One whose end does not wait for who has stopped reading, as a player that is paused has.

    uvicorn waits for that for ever, or cancels what answers, which it then reports as a bug of the app. What is being
    computed, in threads that nothing can stop, is waited for: a `--timeout` at most, as a rule.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn has it, but that connections which are still there after GRACE_S are cut."""
        cut = asyncio.get_running_loop().call_later(GRACE_S, self._cut)
        try:
            await super().shutdown(sockets)
        finally:
            cut.cancel()

    def _cut(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def run(app: App, listener: socket.socket, *, lifespan: bool) -> None:
    """Answers at a socket until a signal comes, and raises what that signal's handler does."""
    config = uvicorn.Config(
        app,
        lifespan="on" if lifespan else "off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    Server(config).run(sockets=[listener])
