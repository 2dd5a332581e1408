"""A Ray cluster of several nodes on this machine, each with its own processes, which can be killed like a machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
START_S = 90  # until a node is there, on a busy machine of two cores
TRIES = 3
STARTED = b"Ray runtime started"
STAGE = re.compile(r"MapBatches\((\w+)\)")
OBJECT_STORE_BYTES = 150 << 20


@dataclass
class Node:
    """A node: what `ray start --block` is, and all that it started."""

    name: str
    process: subprocess.Popen[bytes]

    def pids(self) -> list[int]:
        """Every process of the node; its workers are its raylet's children."""
        parents = _parents()
        found = [self.process.pid]
        for pid in found:  # grows while it is read
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def stages(self) -> set[str]:
        """What its workers do now: Ray's workers call themselves by it."""
        return {stage for pid in self.pids() for stage in STAGE.findall(_title(pid))}

    def kill(self) -> None:
        """Ends the node as a power cut does: nothing of it says good-bye."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(60)


@dataclass
class Cluster:
    """Nodes by name; the head, which has no CPUs, is one of them."""

    port: int
    folder: str
    nodes: dict[str, Node] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs that is to join it, and to run this checkout's code."""
        ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f00d" * 16, "RAY_USAGE_STATS_ENABLED": "0"}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        here = {"PATH": path, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": f"127.0.0.1:{self.port}"}
        # Workers give way to everybody by themselves: where the machine is busy next to nothing would be done.
        return {**os.environ, **ray, **here, "RAY_worker_niceness": "0"}

    def start(self, name: str, *options: str) -> None:
        """Starts one more node, and waits until it is there; on a busy machine Ray gives up on some."""
        command = ["ray", "start", "--block", f"--object-store-memory={OBJECT_STORE_BYTES}", *options]
        environment = {name: value for name, value in self.environment.items() if name != "RAY_ADDRESS"}
        said = Path(self.folder, f"{name}.log")
        for _ in range(TRIES):
            with said.open("wb") as log:
                process = subprocess.Popen(
                    command, env=environment, start_new_session=True, stdout=log, stderr=subprocess.STDOUT
                )
            self.nodes[name] = Node(name, process)
            deadline = time.monotonic() + START_S
            while process.poll() is None and time.monotonic() < deadline:
                if STARTED in said.read_bytes():
                    return
                time.sleep(0.2)
            self.nodes.pop(name).kill()
        raise AssertionError(f"node {name} did not come up:\n{said.read_text()}")


@contextmanager
def cluster(workers: Mapping[str, Mapping[str, float]], *, cpus: int) -> Iterator[Cluster]:
    """A head without CPUs, and workers with so many CPUs and the custom resources by their names."""
    with ExitStack() as stack:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        folder = tempfile.mkdtemp(prefix="ray-")  # sockets have short paths
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        made = Cluster(port, folder)
        # Another than Ray's own folder: whoever starts a driver on this machine would join what is written there.
        made.start(
            "head", "--head", f"--port={port}", f"--temp-dir={folder}", "--num-cpus=0", "--include-dashboard=false"
        )
        stack.callback(lambda: [node.kill() for node in made.nodes.values()])
        for name, resources in workers.items():
            made.start(
                name, f"--address=127.0.0.1:{port}", f"--num-cpus={cpus}", f"--resources={json.dumps(dict(resources))}"
            )
        yield made


def _parents() -> dict[int, int]:
    """Every process of this machine with its parent."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            found[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    return found


def _title(pid: int) -> str:
    """What a process calls itself."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].decode(errors="replace")
    except OSError:
        return ""
