"""What the server allows: how much, how many, how long, and who."""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Bounds of a request, and the token that all requests must carry if there is one."""

    body_bytes: int = 12 << 20
    top: int = 200  # hits or rows of a page
    depth: int = 2_000  # hits up to the end of a page
    text_length: int = 1_000
    labels: int = 1_000
    at_a_time: int = 8  # questions that are computed; as many again wait
    seconds: float = 60.0
    token: str | None = field(default=None, repr=False)  # no log has it
    # What a request may call this server; None for anything. Without a token only names of this machine may do: a page
    # of another site, whose name is made to lead here, would be let in by the browser.
    hosts: frozenset[str] | None = None

    def admits(self, token: str) -> bool:
        """Whether a token is the one; takes as long for any."""
        return self.token is None or secrets.compare_digest(token.encode(), self.token.encode())

    def knows(self, host: str) -> bool:
        """Whether a `Host` header, with or without a port, names this server."""
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        return self.hosts is None or name.strip("[]").lower() in self.hosts


LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
