"""What the server allows: how much, how many, how long, and who."""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass


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
    token: str | None = None

    def admits(self, token: str) -> bool:
        """Whether a token is the one; takes as long for any."""
        return self.token is None or secrets.compare_digest(token.encode(), self.token.encode())


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
