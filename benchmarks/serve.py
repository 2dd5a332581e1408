"""How many questions `footage serve` answers, how fast, and what it holds on to.

    python -m benchmarks.serve ARCHIVE [--ways one] [--clients 1 8 64] [--seconds 10] [--requests 0] [--every 5000]
    python -m benchmarks.serve --reindex [--copies 100] [--idle] [--clients 1] [--seconds 30]

The server is a process of its own, and so are the clients, which share the machine with it: each asks for the next text
as soon as it has its answer. No text is asked for twice, so that nothing is answered from a cache. A request that is
told to come again (429) counts as refused, and its client waits as long as the server says.

A way is `one`, the server without Ray, or REPLICASxBATCH: `2x32` are two replicas that encode the texts of up to 32
questions together, `2x1` two that encode each alone. `--requests` asks that many more of the last way at the end and
tells the server's memory every `--every`. `--reindex` makes an archive of its own and asks it for `--seconds`, and then
for as long as `footage index` takes to add `--copies` files of 10 to 30 s to it; with `--idle` that gets what CPU time
is left (`chrt --idle 0`). CPU time is that of the server and all that it started, for each answer; it depends less on
what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, its own folder would be there

from benchmarks import harness
from pipeline import showcase

ROOT = Path(__file__).resolve().parents[1]
WORDS = ("red", "blue", "green", "yellow", "white", "black", "dark", "bright", "small", "large", "fast", "slow")
THINGS = ("circle", "square", "triangle", "star", "dog", "person", "car", "boat", "ball", "bird")
STARTED = re.compile(r"at (http://\S+)")
WARM = 20  # requests before any is counted
HEAD = ["way", "clients", "re-ranked", "answers/s", "p50 ms", "p95 ms", "p99 ms", "CPU ms", "refused", "failed"]


@dataclass
class Answers:
    """What came back."""

    taken_s: list[float] = field(default_factory=list)
    refused: int = 0
    failed: int = 0
    asked_s: float = 0.0  # how long was asked
    cpu_s: float = 0.0  # of the server

    @property
    def cuts_ms(self) -> list[float]:
        """p50, p95 and p99."""
        taken_ms = [1e3 * each for each in self.taken_s]
        cuts = statistics.quantiles(taken_ms, n=100) if len(taken_ms) > 1 else [0.0] * 99
        return [cuts[at - 1] for at in (50, 95, 99)]


def environment() -> dict[str, str]:
    """That of a command of this checkout."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": paths}


@contextmanager
def server(archive: Path, way: str = "one") -> Iterator[tuple[str, int]]:
    """A server of an archive, its URL and process id."""
    command = [sys.executable, "-m", "jobs", "serve", str(archive), "--port", "0"]
    if way != "one":
        replicas, batch = way.split("x")
        command += ["--replicas", replicas, "--batch", batch]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if STARTED.search(line))
        found = STARTED.search(line)
        assert found is not None
        yield found[1], process.pid
    finally:
        process.terminate()
        process.wait(60)


def texts() -> Iterator[str]:
    """One after the other, none twice."""
    for number in count():
        yield f"a {WORDS[number % 12]} {THINGS[number % 10]} and a {WORDS[number // 7 % 12]} one, take {number}"


async def ask(
    client: httpx.AsyncClient, asked: Iterator[str], go_on: Callable[[], bool], answers: Answers, rerank: str
) -> None:
    """One client, for as long as it is to go on."""
    while go_on():
        began = time.perf_counter()
        response = await client.get("/search", params={"q": next(asked), "rerank": rerank})
        if response.status_code == httpx.codes.OK:
            answers.taken_s.append(time.perf_counter() - began)
        elif response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            answers.refused += 1
            await asyncio.sleep(float(response.headers["retry-after"]))
        else:
            answers.failed += 1


async def load(url: str, pid: int, clients: int, go_on: Callable[[], bool], rerank: str = "true") -> Answers:
    """What so many clients get of the server that is a process."""
    answers, asked = Answers(), texts()
    server_of = harness.Descendants(pid)
    before_s = server_of.cpu_s()
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        began = time.perf_counter()
        await asyncio.gather(*(ask(client, asked, go_on, answers, rerank) for _ in range(clients)))
        answers.asked_s = time.perf_counter() - began
    answers.cpu_s = server_of.cpu_s() - before_s
    return answers


def lasting(seconds: float) -> Callable[[], bool]:
    """Whether so much time is not over yet."""
    until_s = time.perf_counter() + seconds
    return lambda: time.perf_counter() < until_s


def row(way: str, clients: int, rerank: str, answers: Answers) -> list[str]:
    """The table's."""
    return [
        way,
        str(clients),
        "yes" if rerank == "true" else "no",
        f"{len(answers.taken_s) / answers.asked_s:.1f}",
        *(f"{cut:.0f}" for cut in answers.cuts_ms),
        f"{1e3 * answers.cpu_s / max(1, len(answers.taken_s)):.0f}",
        str(answers.refused),
        str(answers.failed),
    ]


def memory_mb(pid: int) -> tuple[float, float]:
    """What a process holds, in MB: PSS and RSS."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines[1:]}
    return found["Pss"], found["Rss"]


async def so_many(url: str, requests: int) -> None:
    """That many requests by eight clients."""
    left, asked = iter(range(requests)), texts()

    async def work(client: httpx.AsyncClient) -> None:
        for _ in left:
            await client.get("/search", params={"q": next(asked)})

    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        await asyncio.gather(*(work(client) for _ in range(8)))


def held(url: str, pid: int, requests: int, every: int) -> list[tuple[int, float, float]]:
    """Asks that many, and tells the server's memory on the way: requests so far, PSS and RSS in MB."""
    found = [(0, *memory_mb(pid))]
    while (so_far := found[-1][0]) < requests:
        asyncio.run(so_many(url, min(every, requests - so_far)))
        found.append((min(so_far + every, requests), *memory_mb(pid)))
        print("{} requests: PSS {:.0f} MB, RSS {:.0f} MB".format(*found[-1]), flush=True)
    return found


def ways_compared(
    archive: Path, ways: Sequence[str], clients: Sequence[int], seconds: float, held_on: tuple[int, int]
) -> None:
    """Prints the table and appends it to build/bench/serve.jsonl."""
    rows: list[list[str]] = []
    memory: list[tuple[int, float, float]] = []
    for way in ways:
        with server(archive, way) as (url, pid):
            asyncio.run(so_many(url, WARM))
            for rerank in ("true", "false"):
                for number in clients:
                    answers = asyncio.run(load(url, pid, number, lasting(seconds), rerank))
                    rows.append(row(way, number, rerank, answers))
            if held_on[0] and way == ways[-1]:
                memory = held(url, pid, *held_on)
    print(harness.table(HEAD, rows))
    harness.record("serve", {"rows": rows, "memory_mb": memory})


# --- while an index run is at work


def film(reel: Sequence[Path], folder: Path, copies: int) -> None:
    """That many files, none like another: a `free` box at the end, which players skip, tells them apart."""
    folder.mkdir(exist_ok=True)
    for number in range(copies):
        file = folder / f"{number:05}.mp4"
        if not file.exists():
            content = reel[number % len(reel)].read_bytes()
            file.write_bytes(content + struct.pack(">I4sQ", 16, b"free", number))


def index(footage: Path, archive: Path, *, idle: bool) -> subprocess.Popen[bytes]:
    """`footage index`, started."""
    command = [sys.executable, "-m", "jobs", "index", str(footage), str(archive)]
    command = ["chrt", "--idle", "0", *command] if idle else command
    return subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def beside_indexing(copies: int, clients: Sequence[int], seconds: float, *, idle: bool) -> None:
    """Prints what clients get alone and while the archive grows, and appends it to build/bench/serve.jsonl."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        reel = [file for file in showcase.make_footage(folder / "reel") if file.stem in showcase.REEL]
        for number in clients:
            footage, archive = folder / f"footage-{number}", folder / f"archive-{number}"
            film(reel, footage, len(reel))
            assert index(footage, archive, idle=False).wait() == 0
            with server(archive) as (url, pid):
                asyncio.run(so_many(url, WARM))
                before = httpx.get(f"{url}/ready").json()["version"]
                alone = asyncio.run(load(url, pid, number, lasting(seconds)))
                film(reel, footage, len(reel) + copies)
                run = index(footage, archive, idle=idle)
                beside = asyncio.run(load(url, pid, number, lambda run=run: run.poll() is None))
                assert run.returncode == 0
                after = httpx.get(f"{url}/ready").json()["version"]
                rows += [row("alone", number, "true", alone), row("indexing", number, "true", beside)]
                times = beside.cuts_ms[2] / alone.cuts_ms[2]
                print(f"{number} clients: p99 x {times:.2f} in {beside.asked_s:.0f} s; versions {before} to {after}")
            shutil.rmtree(archive)
    print(harness.table(HEAD, rows))
    harness.record("serve", {"rows": rows, "copies": copies, "idle": idle})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, nargs="?")
    parser.add_argument("--ways", nargs="+", default=["one"])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--requests", type=int, default=0)
    parser.add_argument("--every", type=int, default=5_000)
    parser.add_argument("--reindex", action="store_true")
    parser.add_argument("--copies", type=int, default=100)
    parser.add_argument("--idle", action="store_true")
    given = parser.parse_args()
    if given.reindex:
        beside_indexing(given.copies, given.clients, given.seconds, idle=given.idle)
    elif given.archive is None:
        parser.error("expected an archive, or --reindex")
    else:
        ways_compared(given.archive, given.ways, given.clients, given.seconds, (given.requests, given.every))
