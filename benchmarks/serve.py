"""How many questions `footage serve` answers, how fast, and what it holds on to.

    python -m benchmarks.serve ARCHIVE [--clients 1 8 64] [--seconds 10] [--requests 0]

The server is a process of its own, and so are the clients, which share the machine with it: each asks for the next text
as soon as it has its answer. No text is asked for twice, so that nothing is answered from a cache. A request that is
told to come again (429) counts as refused, and its client waits as long as the server says. `--requests` asks that many
more at the end and tells how the server's memory grew.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, its own folder would be there

from benchmarks import harness

ROOT = Path(__file__).resolve().parents[1]
WORDS = ("red", "blue", "green", "yellow", "white", "black", "dark", "bright", "small", "large", "fast", "slow")
THINGS = ("circle", "square", "triangle", "star", "dog", "person", "car", "boat", "ball", "bird")
STARTED = re.compile(r"at (http://\S+)")
WARM = 20  # requests before any is counted


@dataclass
class Answers:
    """What came back."""

    taken_s: list[float] = field(default_factory=list)
    refused: int = 0
    failed: int = 0


@contextmanager
def server(archive: Path) -> Iterator[tuple[str, int]]:
    """A server of an archive, its URL and process id."""
    command = [sys.executable, "-m", "jobs", "serve", str(archive), "--port", "0"]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths})
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if STARTED.search(line))
        found = STARTED.search(line)
        assert found is not None
        yield found[1], process.pid
    finally:
        process.terminate()
        process.wait(30)


def texts() -> Iterator[str]:
    """One after the other, none twice."""
    for number in count():
        yield f"a {WORDS[number % 12]} {THINGS[number % 10]} and a {WORDS[number // 7 % 12]} one, take {number}"


async def ask(client: httpx.AsyncClient, asked: Iterator[str], until_s: float, answers: Answers, rerank: str) -> None:
    """One client, until it is time."""
    while time.perf_counter() < until_s:
        began = time.perf_counter()
        response = await client.get("/search", params={"q": next(asked), "rerank": rerank})
        if response.status_code == httpx.codes.OK:
            answers.taken_s.append(time.perf_counter() - began)
        elif response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            answers.refused += 1
            await asyncio.sleep(float(response.headers["retry-after"]))
        else:
            answers.failed += 1


async def load(url: str, clients: int, seconds: float, rerank: str) -> Answers:
    """What so many clients get."""
    answers, asked = Answers(), texts()
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        until_s = time.perf_counter() + seconds
        await asyncio.gather(*(ask(client, asked, until_s, answers, rerank) for _ in range(clients)))
    return answers


def row(clients: int, rerank: str, seconds: float, answers: Answers) -> list[str]:
    """The table's."""
    taken_ms = [1e3 * each for each in answers.taken_s]
    cuts = statistics.quantiles(taken_ms, n=100) if len(taken_ms) > 1 else [0.0] * 99
    return [
        str(clients),
        "yes" if rerank == "true" else "no",
        f"{len(taken_ms) / seconds:.1f}",
        *(f"{cuts[at - 1]:.0f}" for at in (50, 95, 99)),
        str(answers.refused),
        str(answers.failed),
    ]


def memory_mb(pid: int) -> float:
    """What a process holds, in MB of PSS."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


async def so_many(url: str, requests: int) -> None:
    """That many requests by eight clients."""
    left, asked = iter(range(requests)), texts()

    async def work(client: httpx.AsyncClient) -> None:
        for _ in left:
            await client.get("/search", params={"q": next(asked)})

    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        await asyncio.gather(*(work(client) for _ in range(8)))


def main(archive: Path, clients: Sequence[int], seconds: float, requests: int) -> None:
    """Prints the table and appends it to build/bench/serve.jsonl."""
    with server(archive) as (url, pid):
        asyncio.run(so_many(url, WARM))
        rows = []
        for rerank in ("true", "false"):
            found = ((number, asyncio.run(load(url, number, seconds, rerank))) for number in clients)
            rows += [row(number, rerank, seconds, answers) for number, answers in found]
        head = ["clients", "re-ranked", "answers/s", "p50 ms", "p95 ms", "p99 ms", "refused", "failed"]
        print(harness.table(head, rows))
        before_mb = memory_mb(pid)
        if requests:
            asyncio.run(so_many(url, requests))
            print(f"{requests} requests: {before_mb:.0f} MB before, {memory_mb(pid):.0f} MB after")
        harness.record("serve", {"rows": rows, "memory_mb": [before_mb, memory_mb(pid)], "requests": requests})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--requests", type=int, default=0)
    given = parser.parse_args()
    main(given.archive, given.clients, given.seconds, given.requests)
