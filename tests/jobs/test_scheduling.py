"""The examples of docs/scheduling.md: each parses where it is meant for, and runs a command line that we take."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import typer
import yaml

from jobs import console
from jobs.__main__ import app

PAGE = Path(__file__).parents[2].joinpath("docs/scheduling.md").read_text(encoding="utf-8")


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


def test_the_table_has_our_exit_codes() -> None:
    codes = [int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)]
    ours = [console.EXIT_ERROR, 2, console.EXIT_SOME_FAILED, console.EXIT_BUSY, console.EXIT_REFUSED]
    assert codes == [0, *ours, 128 + signal.SIGINT, 128 + signal.SIGTERM]


def test_an_option_we_do_not_have_would_be_found() -> None:
    with pytest.raises(Exception, match="No such option: --jason"):
        parse("footage reindex /srv/archive --jason")
