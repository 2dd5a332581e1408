"""What the page's tests need: an archive with awkward names, a server in a process of its own, and a browser."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import flows, serving, showcase, tagging
from pipeline.label_files import read_labels
from tests.media import make_video
from tests.web.conftest import SETTINGS

ROOT = Path(__file__).parents[2]
CHROMIUM = Path("/usr/bin/chromium")
HOSTILE = "<img src=x onerror=alert(1)>"
HOSTILE_FILE = f"{HOSTILE}.mp4"
LABELS = {  # by what the embedded model knows
    "left": "something moves left",
    "right": "something moves right",
    "up's": "something moves up",
    HOSTILE: "something moves down",
}
END_S = 60.0  # for a server or a browser to end; a busy machine is no bug
URL = re.compile(r"at (http://\S+)")
HARMLESS = "Failed to load resource"  # how a browser reports an answer of 400 or more; tests say which they expect


def make_archive(folder: Path) -> Path:
    """An archive of five videos, tagged, one of whose files is gone since."""
    footage = folder / "footage"
    footage.mkdir(parents=True)
    made = {file.stem: file for file in showcase.make_footage(folder / "all")}
    for name, source in (("morning.mp4", "morning"), (HOSTILE_FILE, "kite"), ("going away.mp4", "harbour")):
        shutil.copy(made[source], footage / name)
    make_video(footage / "tape.avi", frames=50, rate_hz=2, size=(128, 96), codec="mpeg4")
    make_video(footage / "tall.mp4", frames=20, rate_hz=2, size=(96, 160))
    flows.index(str(footage), folder / "archive", SETTINGS)
    labels = folder / "labels.csv"
    rows = [f'"{label}","{wording}"' for label, wording in LABELS.items()]
    labels.write_text("\n".join(["label,wording", *rows]) + "\n", encoding="utf-8")
    tagging.tag(serving.open_space(folder / "archive"), read_labels(labels))
    (footage / "going away.mp4").unlink()
    return folder / "archive"


@dataclass(frozen=True)
class Server:
    """A serving process and its address."""

    process: subprocess.Popen
    url: str

    def ended(self) -> tuple[int, str]:
        """How it ended and what it said since it began to serve; fails where it does not end."""
        _, said = self.process.communicate(timeout=END_S)
        return self.process.returncode, said


@contextlib.contextmanager
def served(archive: Path, *, token: str | None = None) -> Iterator[Server]:
    """A server over an archive, in a process that ends with the block."""
    environment = {name: value for name, value in os.environ.items() if name != "FOOTAGE_TOKEN"}
    if token:
        environment["FOOTAGE_TOKEN"] = token
    command = [sys.executable, "-m", "jobs", "serve", str(archive), "--port", "0", "--device", "cpu"]
    with running(command, environment, cwd=ROOT) as server:
        yield server


@contextlib.contextmanager
def running(command: list[str], environment: dict[str, str], *, cwd: Path) -> Iterator[Server]:
    """A command that serves and tells its address, in a process that ends with the block."""
    with subprocess.Popen(command, cwd=cwd, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = []
            for line in process.stderr:
                said.append(line)
                if match := URL.search(line):
                    yield Server(process, match.group(1))
                    break
            else:
                raise AssertionError(f"the server did not start: {''.join(said)}")
        finally:
            process.terminate()
            try:
                process.communicate(timeout=END_S)
            finally:
                process.kill()  # a server that does not end fails one test, and stops none


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """For what Playwright waits for without bound: the browser's driver is killed where it takes longer than END_S."""
    timer = threading.Timer(END_S, _kill_drivers)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _kill_drivers() -> None:
    """Ends what Playwright started for this process, where /proc tells; it then says that its connection is closed."""
    for children in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # who has ended meanwhile
            for child in children.read_text(encoding="ascii").split():
                if b"playwright/driver" in Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(int(child), signal.SIGKILL)


class Watched:
    """A browser's page, and everything that went wrong on it."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.wrong: list[str] = []
        self.expected: tuple[int, ...] = ()  # statuses of answers that a test provokes
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.wrong.append(f"script: {error}"))
        page.on("dialog", self._dialog)

    def _said(self, message: Any) -> None:
        provoked = HARMLESS in message.text and any(str(status) in message.text for status in self.expected)
        if message.type in ("error", "warning") and not provoked:
            self.wrong.append(f"console: {message.text} ({message.location.get('url')})")

    def _dialog(self, dialog: Any) -> None:
        self.wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()
