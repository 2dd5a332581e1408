"""The examples of docs/scheduling.md: each parses where it is meant for, and runs a command line that we take."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import typer
import yaml

from jobs import console
from jobs.__main__ import app
from pipeline.archive import Archive
from pipeline.flows import index
from pipeline.settings import IndexSettings
from tests.footage import film

ROOT = Path(__file__).parents[2]
TOKEN = "f00d" * 16  # clusters ask for one, and tests leave none in the home folder
PAGE = ROOT.joinpath("docs/scheduling.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def parse(line: str) -> dict:
    """The parameters of the `footage` command in a line of shell, read by the command line's own parser."""
    words = shlex.split(line)
    words = words[words.index("footage") + 1 :]
    ends = (place for place, word in enumerate(words) if word in {">", "|", "&&"})
    name, *arguments = words[: next(ends, None)]
    command = typer.main.get_command(app).commands[name]
    context = command.make_context(name, arguments)
    assert name == "reindex"
    return context.params


CRON, SHELL, KUBERNETES = blocks("cron"), blocks("sh"), blocks("yaml")
SERVICE, TIMER = blocks("ini")


def test_every_example_is_there() -> None:
    assert (len(CRON), len(SHELL), len(KUBERNETES)) == (1, 1, 1)


def test_the_cron_line_has_five_fields_and_a_command() -> None:
    minute, hour, day, month, weekday, command = CRON[0].strip().split(maxsplit=5)
    assert 0 <= int(minute) < 60
    assert 0 <= int(hour) < 24
    assert (day, month, weekday) == ("*", "*", "*")
    assert "%" not in command, "cron takes a percent sign for a line break"
    assert parse(command)["as_json"]
    assert subprocess.run(["sh", "-n", "-c", command]).returncode == 0


def test_the_units_parse_and_the_service_runs_us(tmp_path: Path) -> None:
    service, timer = configparser.ConfigParser(), configparser.ConfigParser()
    service.optionxform = timer.optionxform = str
    service.read_string(SERVICE)
    timer.read_string(TIMER)
    params = parse(service["Service"]["ExecStart"])
    assert (params["as_json"], params["metrics"].name) == (True, "footage.prom")
    assert service["Service"]["SuccessExitStatus"] == str(console.EXIT_SOME_FAILED)
    assert timer["Install"]["WantedBy"] == "timers.target"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    for name, text in (("footage-reindex.service", SERVICE), ("footage-reindex.timer", TIMER)):
        (tmp_path / name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))]
    run = subprocess.run(command, capture_output=True, text=True)
    ours = [line for line in run.stderr.splitlines() if "footage-reindex" in line]
    assert (ours, run.returncode) == ([], 0), run.stderr
    calendar = TIMER.split("OnCalendar=")[1].splitlines()[0]
    assert subprocess.run(["systemd-analyze", "calendar", calendar], capture_output=True).returncode == 0


def test_the_cron_job_is_one_and_counts_our_exit_codes() -> None:
    job = yaml.safe_load(KUBERNETES[0])
    assert (job["apiVersion"], job["kind"], job["spec"]["concurrencyPolicy"]) == ("batch/v1", "CronJob", "Forbid")
    spec = job["spec"]["jobTemplate"]["spec"]
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == [console.EXIT_ERROR, 2, console.EXIT_REFUSED]
    (container,) = spec["template"]["spec"]["containers"]
    assert container["name"] == rule["onExitCodes"]["containerName"]
    (script,) = container["args"]
    assert parse(script.split(";")[0])["as_json"]
    volumes = {volume["name"] for volume in spec["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (3, 0), (1, 1), (4, 4), (5, 5), (130, 130)])
def test_the_script_of_the_cron_job_passes_codes_on_but_for_3(code: int, expected: int) -> None:
    job = yaml.safe_load(KUBERNETES[0])
    (script,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"]
    stand_in = f"footage() {{ return {code}; }}; {script}"
    assert subprocess.run(["sh", "-c", stand_in]).returncode == expected


def test_ray_gets_an_entry_point_that_we_take() -> None:
    submit, entry = SHELL[0].split(" -- ")
    assert submit.startswith("ray job submit ")
    assert parse(entry)["engine"] == "ray"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """The address of a head node of our own; it and all it started end with the test."""
    port, agent, client = free_ports(3)
    # `ray stop` would end every cluster of the machine. Sockets have short paths.
    folder = tempfile.mkdtemp(prefix="ray-")
    head = f"ray start --head --block --port=0 --num-cpus=4 --dashboard-port={port} --temp-dir={folder}"
    head += f" --dashboard-agent-listen-port={agent} --ray-client-server-port={client}"  # of two clusters on a machine
    with subprocess.Popen(shlex.split(head), env=environment(), start_new_session=True, stdout=subprocess.PIPE) as ray:
        try:
            wait_for(port, ray)
            yield f"http://127.0.0.1:{port}"
        finally:
            ray.terminate()
            ray.communicate(timeout=60)
            shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens at."""
    with ExitStack() as stack:
        free = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in free:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in free]


def environment() -> dict[str, str]:
    """Ours, in which `ray` and `footage` are those of this environment, and the code is this checkout's."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
    return {**os.environ, **ray, "PATH": path, "PYTHONPATH": str(ROOT)}


def wait_for(port: int, head: subprocess.Popen) -> None:
    """Until jobs are taken at a port of this machine."""
    for _ in range(240):
        assert head.poll() is None, "the head node ended"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api/version", timeout=5).close()
        except urllib.error.HTTPError:
            return  # it wants its token, which `ray job submit` has
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise AssertionError("no jobs are taken")


def submitted(line: str) -> subprocess.CompletedProcess[str]:
    """A job that has run; a cluster takes some time until it has somebody to run it."""
    for _ in range(30):
        ended = subprocess.run(shlex.split(line), env=environment(), capture_output=True, text=True, timeout=500)
        if "No available agent" not in ended.stderr:
            break
        time.sleep(1)
    return ended


@pytest.mark.slow
@pytest.mark.ray
def test_the_line_for_a_cluster_reindexes_an_archive_there(cluster: str, tmp_path: Path, tiny_weights: Path) -> None:
    pile, archive = tmp_path / "pile", tmp_path / "archive"
    pile.mkdir()
    film(pile / "left.mp4", "left")
    index(pile, archive, IndexSettings(model=str(tiny_weights), engine="local"))
    film(pile / "right.mp4", "right")
    line = SHELL[0].replace("http://127.0.0.1:8265", cluster).replace("/srv/archive", str(archive))
    ended = submitted(line)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (report,) = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith('{"run_id"')]
    assert (report["indexed"], report["unchanged"], report["failed"]) == (1, 1, 0)
    assert {Path(row["uri"]).name for row in Archive.open(archive).current_videos(report["space"]).to_pylist()} == {
        "left.mp4",
        "right.mp4",
    }


def test_the_table_has_our_exit_codes() -> None:
    codes = [int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)]
    ours = [console.EXIT_ERROR, 2, console.EXIT_SOME_FAILED, console.EXIT_BUSY, console.EXIT_REFUSED]
    assert codes == [0, *ours, 128 + signal.SIGINT, 128 + signal.SIGTERM]


def test_an_option_we_do_not_have_would_be_found() -> None:
    with pytest.raises(Exception, match="No such option: --jason"):
        parse("footage reindex /srv/archive --jason")
