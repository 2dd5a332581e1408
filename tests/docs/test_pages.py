"""The pages about tasks, done: their commands and programs run from top to bottom, on footage made here.

Blocks with a name after their language are files (```yaml labels.yaml). Paths that pages use are led into a folder of
the test's. Commands that can run on Ray do so under the marker `ray`, as written; else with `--engine local`.
"""

from __future__ import annotations

import os
import runpy
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from jobs.__main__ import main
from pipeline import logs, showcase
from tests.docs.blocks import ROOT, SHELL, Block, Command, blocks, commands, parse
from tests.footage import film

pytest.importorskip("fastapi", reason="the serve extra is not installed")

ENDS_WELL = {0, 3}  # 3: some videos failed, as one of those made here does
LOOKS = {"doctor": {0, 1}}  # what it finds is the machine's matter
# What cannot be had here, by the words of the line.
LEFT_OUT = ("--like-clip", "serve", "s3://", "microsoft/")


@pytest.fixture(scope="session")
def reel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's videos, made once."""
    folder = tmp_path_factory.mktemp("reel")
    showcase.make_footage(folder)
    return folder


@pytest.fixture
def home(tmp_path: Path, reel: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, with what pages take for granted."""
    for name in ("videos", "Videos"):
        (tmp_path / name).mkdir()
        for file in reel.iterdir():
            os.link(file, tmp_path / name / file.name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FOOTAGE_LOG", "text")  # put back when --log-json has set it
    yield tmp_path
    logs.set_up(as_json=False)


def led(text: str, home: Path) -> str:
    """A text with the paths of the pages led into a folder."""
    return text.replace("/mnt/nas", str(home)).replace("~/", f"{home}/")


def write_files(page: Path, home: Path) -> None:
    """The files that a page shows."""
    for block in blocks(page):
        if block.name and block.language != "python":
            file = home / block.name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(led(block.text, home), encoding="utf-8")


def run(command: Command, home: Path, *, engine: str | None) -> None:
    """A command line of ours, in this process; it ends as it should."""
    words = [led(word, home) for word in command.words[1:]]
    name, parameters = parse(command.words)
    if engine is not None and "engine" in parameters and "--engine" not in words:
        words += ["--engine", engine]
    with pytest.raises(SystemExit) as end:
        main(words)
    assert int(end.value.code or 0) in LOOKS.get(name, ENDS_WELL), str(command)


def do(page: str, home: Path, *, engine: str | None = "local", python: Callable[[Block], None] | None = None) -> int:
    """Runs a page; how many commands and programs that were."""
    write_files(ROOT / page, home)
    done = 0
    for block in blocks(ROOT / page):
        if block.language in SHELL:
            ours = [each for each in commands(block) if each.words[0] == "footage"]
            for command in ours:
                if not any(word.startswith(LEFT_OUT) for word in command.words):
                    run(command, home, engine=engine)
                    done += 1
        elif block.language == "python" and block.name and python is not None:
            python(block)
            done += 1
    return done


def make_examples(home: Path) -> None:
    """The clips of docs/fine-tune-on-your-labels.md."""
    for number in range(5):
        for motion in ("left", "right"):
            film(home / "clips" / f"{motion}_{number}.mp4", motion, colour_seed=10 * number)


def test_the_quick_start(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_files(ROOT / "README.md", home)
    first = next(block for block in blocks(ROOT / "README.md") if "~/Videos" in block.text)
    for command in commands(first):
        if command.words[0] == "footage" and not any(word.startswith(LEFT_OUT) for word in command.words):
            run(command, home, engine="local")
    assert "morning.mp4" in capsys.readouterr().out


def test_indexing_a_nas(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert do("docs/index-a-nas.md", home) >= 7
    said = capsys.readouterr().out
    assert "broken.mp4: this is no video container we read" in said
    assert (home / "report.md").is_file()
    assert (home / "hits.html").is_file()


def test_tagging_a_library(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert do("docs/tag-a-library.md", home) >= 7
    assert (home / "labels.calibration.json").is_file()
    assert "to the left" in (home / "videos.csv").read_text()
    assert list((home / "chapters").glob("*.vtt"))


def test_reindexing_every_night(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert do("docs/nightly-reindex.md", home) >= 6


@pytest.fixture
def served(home: Path) -> Iterator[str]:
    """A server over my_archive, at an address of its own."""
    import uvicorn

    from jobs.serve import listen
    from jobs.web.app import create_app
    from pipeline.service import Service

    listener = listen("127.0.0.1", 0)
    app = create_app(Service(str(home / "my_archive"), device="cpu"))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_searching_from_python(home: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["index", str(home / "videos"), "my_archive", "--engine", "local"])

    def play(block: Block) -> None:
        url = request.getfixturevalue("served") if "http://" in block.text else ""
        file = home / block.name
        file.write_text(block.text.replace("http://127.0.0.1:8080", url) if url else block.text, encoding="utf-8")
        capsys.readouterr()
        runpy.run_path(str(file), run_name="__main__")
        assert ".mp4" in capsys.readouterr().out, f"{block.name} finds nothing"

    assert do("docs/search-from-python.md", home, python=play) == 5


@pytest.mark.slow
def test_fine_tuning(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_examples(home)
    assert do("docs/fine-tune-on-your-labels.md", home) >= 5
    assert (home / "my_model").is_dir()


@pytest.mark.slow
def test_the_examples_of_search_and_tagging(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert do("docs/tagging.md", home) >= 7
    Image.new("RGB", (64, 64), "red").save(home / "picture.jpg")
    assert do("docs/search.md", home) >= 12


@pytest.mark.slow
@pytest.mark.ray
def test_indexing_a_nas_as_written(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert do("docs/index-a-nas.md", home, engine=None) >= 7
