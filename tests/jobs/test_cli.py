"""The commands: what they print, how they end, and what they say when something is wrong."""

from __future__ import annotations

import csv
import gc
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from jobs.__main__ import app, main
from tests.footage import BROKEN, CLIPS, SCENE_S, VIDEOS, make_pile
from tests.hub import in_a_process, put_into_cache
from xclip_core.released import RELEASED

HEAVY = {"torch", "ray", "av", "faiss", "pyarrow", "deltalake", "open_clip", "numpy", "jinja2", "PIL"}


@pytest.fixture(scope="module")
def pile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pile(tmp_path_factory.mktemp("pile"))


@pytest.fixture(scope="module")
def archive(pile: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "archive"
    with pytest.raises(SystemExit) as end:
        main(
            [
                "index",
                str(pile),
                str(folder),
                "--model",
                str(tiny_weights),
                "--window",
                str(SCENE_S),
                "--engine",
                "local",
            ]
        )
    assert end.value.code == 3
    return folder


def test_index_json_is_one_object_with_the_documented_keys(footage, pile: Path, tiny_weights: Path, tmp_path) -> None:
    options = ("--model", tiny_weights, "--window", SCENE_S, "--engine", "local", "--json")
    code, out, _ = footage("index", pile, tmp_path / "archive", *options)
    report = json.loads(out)
    assert code == 3
    assert {
        "planned", "indexed", "unchanged", "failed", "gone", "clips", "footage_s", "wall_s", "failures"
    } <= report.keys()  # fmt: skip
    assert report["planned"] == report["indexed"] + report["failed"] == len(VIDEOS) + len(BROKEN)
    assert {failure.keys() == {"uri", "error_kind", "error"} for failure in report["failures"]} == {True}

    code, out, _ = footage("index", pile, tmp_path / "archive", *options)
    assert code == 0
    assert json.loads(out)["unchanged"] == len(VIDEOS) + len(BROKEN)


def test_index_tells_people_what_it_did_and_what_failed(footage, pile: Path, tiny_weights: Path, tmp_path) -> None:
    code, out, _ = footage(
        "index", pile, tmp_path / "a", "--model", tiny_weights, "--window", SCENE_S, "--engine", "local"
    )
    assert code == 3
    assert f"{len(VIDEOS)} videos, {CLIPS} clips" in out
    assert "broken.mp4: this is no video container we read" in out
    assert "empty.mov: this is an empty file" in out


def test_dry_run_says_so_and_ends_well(footage, pile: Path, tiny_weights: Path, tmp_path) -> None:
    code, out, _ = footage(
        "index", pile, tmp_path / "a", "--model", tiny_weights, "--window", SCENE_S, "--engine", "local", "--dry-run"
    )
    assert code == 0
    assert "nothing was changed" in out
    assert "unknown before the first run" in out
    assert not (tmp_path / "a").exists()


def test_search_json_has_the_documented_hits(footage, archive: Path) -> None:
    code, out, _ = footage("search", archive, "a red circle", "--top", 4, "--json")
    hits = json.loads(out)["hits"]
    assert code == 0
    assert [hit["rank"] for hit in hits] == [1, 2, 3, 4]
    assert {"rank", "score", "recall_score", "video_id", "uri", "start_s", "end_s"} <= hits[0].keys()
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)


def test_without_rerank_the_plain_cosine_decides(footage, archive: Path) -> None:
    _, out, _ = footage("search", archive, "a red circle", "--no-rerank", "--json")
    cosines = [hit["recall_score"] for hit in json.loads(out)["hits"]]
    assert len(cosines) == CLIPS
    assert cosines == sorted(cosines, reverse=True)


def test_search_prints_time_codes_and_writes_a_contact_sheet(footage, archive: Path, tmp_path: Path) -> None:
    code, out, err = footage("search", archive, "something <b>moves</b>", "--html", tmp_path / "sheet.html")
    page = (tmp_path / "sheet.html").read_text()
    assert code == 0
    assert "0:02.0" in out
    assert "contact sheet" in err
    assert page.count("data:image/webp;base64,") == CLIPS
    assert "<b>" not in page
    assert "three%20scenes.mp4#t=2.00,4.00" in page


def test_tag_writes_the_file_it_is_asked_for(footage, archive: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("left\nright\n")
    code, out, _ = footage("tag", archive, labels, "--top", 1, "--out", tmp_path / "tags.csv")
    rows = list(csv.DictReader((tmp_path / "tags.csv").read_text().splitlines()))
    assert code == 0
    assert f"{CLIPS} clips tagged" in out
    assert len(rows) == CLIPS
    assert {row["label"] for row in rows} <= {"left", "right"}

    _, out, _ = footage("tag", archive, labels, "--top", 0, "--json")
    tags = json.loads(out)["tags"]
    assert sum(tag["probability"] for tag in tags) == pytest.approx(CLIPS)


def test_info_tells_what_is_there(footage, archive: Path) -> None:
    code, out, _ = footage("info", archive, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["videos"] == {"ok": len(VIDEOS), "failed": len(BROKEN)}
    assert found["clips"] == CLIPS
    assert found["runs"][0]["state"] == "finished"
    code, out, _ = footage("info", archive)
    assert code == 0
    assert f"{len(BROKEN)} failed, {len(VIDEOS)} ok" in out


def test_models_lists_every_name_with_its_cost(footage) -> None:
    code, out, _ = footage("models", "--json")
    found = {entry["name"]: entry for entry in json.loads(out)["models"]}
    assert code == 0
    assert found["footage-tiny"]["where"] == "embedded"
    large = found["microsoft/xclip-large-patch14-16-frames"]
    assert (large["frames"], large["image_size"], large["architecture"]) == (16, 336, "L/14")
    assert large["gmac_per_clip"] == pytest.approx(3060.5, abs=0.1)
    code, out, _ = footage("models")
    assert code == 0
    assert out.count("to fetch") + out.count("cached") == len(found) - 1


def test_models_says_what_is_in_the_cache_and_what_is_to_fetch(tmp_path: Path) -> None:
    put_into_cache(tmp_path / "hub", "microsoft/xclip-base-patch16")
    code = "from jobs.__main__ import main; main(['models'])"
    run = in_a_process(code, tmp_path, COLUMNS="120", HF_HUB_OFFLINE="1")
    assert run.returncode == 0, run.stderr
    lines = [line.split() for line in run.stdout.splitlines()]
    where = {line[0]: " ".join(line[8:]) for line in lines if line and line[0].startswith(("footage", "microsoft"))}
    expected = dict.fromkeys(RELEASED, "to fetch")
    assert where == expected | {"footage-tiny": "embedded", "microsoft/xclip-base-patch16": "cached"}


def test_convert_writes_and_refuses_to_overwrite(footage, tiny_weights: Path, tmp_path: Path) -> None:
    code, _, err = footage("convert", tiny_weights, tmp_path / "folder")
    assert code == 0
    assert "hf layout, from official" in err
    assert {file.name for file in (tmp_path / "folder").iterdir()} == {"config.json", "model.safetensors"}
    code, _, err = footage("convert", tmp_path / "folder", tmp_path / "folder")
    assert code == 1
    assert "overwrite it with --force" in err
    code, _, err = footage("convert", tmp_path / "folder", tmp_path / "back.pth", "--layout", "official")
    assert code == 0
    assert "official layout, from hf" in err


def test_a_resampled_model_is_said_to_be_one_whenever_it_answers(footage, pile, tiny_weights, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    options = ("--model", tiny_weights, "--window", SCENE_S, "--engine", "local", "--frames", 4)
    _, out, err = footage("index", pile, archive, *options, "--json")
    assert "note: the model's frame table was resampled from 5 to 4 frames; no accuracy is published" in " ".join(
        err.split()
    )
    assert len(json.loads(out)["notes"]) == 1
    labels = tmp_path / "labels.txt"
    labels.write_text("left\nright\n")
    for arguments in (("search", archive, "left", "--json"), ("tag", archive, labels, "--json")):
        code, out, err = footage(*arguments)
        assert code == 0
        assert "resampled from 5 to 4 frames" in " ".join(err.split())
        json.loads(out)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("index", "/nowhere", "{tmp}/a"), "error: there is nothing at /nowhere"),
        (("index", "{tmp}", "{tmp}/a"), "error: no video files under"),
        (("index", "{pile}", "{tmp}/a", "--model", "no-such-model"), "error: there is no model 'no-such-model'"),
        (("index", "{pile}", "{tmp}/a", "--model", "xclip-base-patch32"), "did you mean microsoft/xclip-base-patch32"),
        (("index", "{pile}", "{tmp}/a", "--model", "openclip:nothing"), "expected openclip:ARCH/TAG"),
        (("index", "{pile}", "{tmp}/a", "--frames", "0"), "error: --frames 0 is not usable"),
        (("index", "{pile}", "{tmp}/a", "--image-size", "100"), "expected a multiple of 16"),
        (("convert", "footage-tiny", "{tmp}/no/a.pth"), "there is no folder"),
        (("index", "{pile}", "{tmp}/a", "--window", "0"), "error: a window of 0.0 s is not usable"),
        (("search", "{tmp}", "anything"), "error: there is no archive at"),
        (("search", "{archive}", ""), "error: the text '' is empty"),
        (("search", "{archive}", "word " * 90), "tokens and the model takes 75"),
        (("search", "{archive}", "dog", "--top", "0"), "error: --top 0 asks for no hits"),
        (("tag", "{archive}", "/nowhere.txt"), "error: the label file /nowhere.txt cannot be read"),
        (("info", "/nowhere"), "error: there is no archive at /nowhere"),
    ],
)
def test_mistakes_end_as_one_clear_sentence(footage, arguments, sentence, archive, pile, tmp_path: Path) -> None:
    filled = [argument.format(tmp=tmp_path, archive=archive, pile=pile) for argument in arguments]
    code, out, err = footage(*filled)
    assert (code, out) == (1, "")
    assert sentence in err
    assert "Traceback" not in err


def test_an_interrupt_says_how_to_go_on(tiny_weights: Path, pile: Path, tmp_path: Path) -> None:
    """A real process and a real signal, sent once the archive is there."""
    archive = tmp_path / "archive"
    command = [sys.executable, "-m", "jobs", "index", str(pile), str(archive), "--model", str(tiny_weights)]
    with subprocess.Popen([*command, "--engine", "local"], stderr=subprocess.PIPE, text=True) as process:
        while not (archive / "runs").exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again to go on" in err


def test_debug_shows_the_traceback_wherever_it_stands(footage) -> None:
    for arguments in (("--debug", "info", "/nowhere"), ("info", "/nowhere", "--debug")):
        code, _, err = footage(*arguments)
        assert code == 1
        assert "Traceback" in err


@pytest.mark.parametrize("arguments", [("index",), ("search", "a"), ("index", "a", "b", "--engine", "steam"), ("fly",)])
def test_wrong_usage_ends_with_2(footage, arguments) -> None:
    assert footage(*arguments)[0] == 2


def loaded_after(*arguments: object) -> set[str]:
    """The modules that a process has loaded when a command has ended in it, by their full names."""
    code = """if True:
        import sys
        from jobs.__main__ import main
        try:
            main(sys.argv[1:])
        except SystemExit as end:
            assert not end.code, end.code
        print("loaded:", *sys.modules)"""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("loaded:")[1].split())


@pytest.mark.parametrize("command", [None, *typer.main.get_command(app).commands])
def test_help_needs_no_heavy_library(command: str | None) -> None:
    assert HEAVY & loaded_after(*filter(None, [command, "--help"])) == set()


@pytest.mark.parametrize("options", [(), ("--no-rerank",), ("--json",)])
def test_a_search_waits_for_no_library_that_it_does_not_use(options: tuple[str, ...], archive: Path) -> None:
    loaded = loaded_after("search", archive, "snow", *options)
    assert {"torch", "faiss", "deltalake", "safetensors"} <= loaded
    others = {"ray", "av", "open_clip", "torchvision", "timm", "transformers", "huggingface_hub", "jinja2", "PIL"}
    assert (others | {"torch._dynamo"}) & loaded == set()


def test_a_search_leaves_the_garbage_collector_as_it_was(footage, archive: Path) -> None:
    assert gc.isenabled()
    assert footage("search", archive, "snow")[0] == 0
    assert footage("search", "/nowhere", "snow")[0] == 1
    assert gc.isenabled()
    gc.disable()
    try:
        assert footage("search", archive, "snow")[0] == 0
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_readme_shows_every_command() -> None:
    readme = Path(__file__).parents[2].joinpath("README.md").read_text()
    commands = typer.main.get_command(app).commands
    assert [name for name in commands if f"footage {name}" not in readme] == []
    assert all(command.callback.__doc__ for command in app.registered_commands if command.callback)
