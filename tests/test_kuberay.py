"""docs/kuberay.yaml and the examples of docs/cluster.md: fields that exist, names that fit, commands that we take."""

from __future__ import annotations

import copy
import json
import re
import shlex
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import jsonschema
import pytest
import typer
import yaml

from jobs.__main__ import app

ROOT = Path(__file__).parents[1]
JOB = yaml.safe_load(ROOT.joinpath("docs/kuberay.yaml").read_text(encoding="utf-8"))
SCHEMA = json.loads(ROOT.joinpath("tests/kuberay.json").read_text(encoding="utf-8"))
PAGE = ROOT.joinpath("docs/cluster.md").read_text(encoding="utf-8")


def parsed(line: str) -> dict:
    """The parameters of the `footage` command in a line of shell, by the command line's own parser."""
    words = shlex.split(line)
    name, *arguments = words[words.index("footage") + 1 :]
    return typer.main.get_command(app).commands[name].make_context(name, arguments).params


def groups() -> Iterator[dict]:
    cluster = JOB["spec"]["rayClusterSpec"]
    yield from (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])


def test_the_job_has_no_field_that_kuberay_does_not_know() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(JOB, SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "entrypont"), "footage"),
        (("spec", "shutdownAfterJobFinishes"), "yes"),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "minReplicas"), "1"),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 1, "template", "spec", "containers"), []),
    ],
)
def test_a_mistake_would_be_found(path: tuple, value: object) -> None:
    broken = copy.deepcopy(JOB)
    place = broken
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMA)


def test_the_job_runs_a_command_that_we_take_on_nodes_that_it_has() -> None:
    params = parsed(JOB["spec"]["entrypoint"])
    offered = [group["rayStartParams"].get("resources") for group in groups()]
    # KubeRay puts the value into a line of shell, which takes one pair of quotes away.
    names = [set(json.loads(json.loads(text))) if text else set() for text in offered]
    assert names == [set(), {params["decode_resource"]}, {params["embed_resource"]}]
    assert JOB["spec"]["rayClusterSpec"]["rayVersion"] == version("ray")
    assert f"rayproject/ray:{version('ray')}" in PAGE


def test_volumes_that_are_mounted_are_there() -> None:
    for group in groups():
        spec = group["template"]["spec"]
        mounted = {mount["name"] for each in spec["containers"] for mount in each["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}
        values = {env["name"]: env["value"] for each in spec["containers"] for env in each["env"]}
        paths = {mount["mountPath"] for each in spec["containers"] for mount in each["volumeMounts"]}
        assert values["TMPDIR"] in paths, "the archive is in a store: workers share a folder"


def test_the_lines_of_the_page_are_commands_that_we_take() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines() if "footage " in line]
    for line in (*lines, *re.findall(r"`(ray job submit [^`]* -- [^`]*)`", PAGE)):
        text = line.replace("$SLURM_ARRAY_TASK_ID", "3").replace("$SLURM_ARRAY_TASK_COUNT", "16")
        parsed(text.partition("--wrap ")[2].strip("'") or text)
    assert len(lines) == 3
