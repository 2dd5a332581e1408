"""`footage search` and `footage eval-search` as a user has them: options, tables, JSON, and mistakes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from jobs.__main__ import main
from tests.footage import CLIPS, SCENE_S, VIDEOS, make_pile


@pytest.fixture(scope="module")
def pile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pile(tmp_path_factory.mktemp("pile"))


@pytest.fixture(scope="module")
def archive(pile: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("searched") / "archive"
    options = ["--model", str(tiny_weights), "--window", str(SCENE_S), "--tolerance", "0", "--engine", "local"]
    with pytest.raises(SystemExit):
        main(["index", str(pile), str(folder), *options])
    return folder


@pytest.fixture
def ask(footage, archive: Path):
    """The JSON of a search."""

    def run(*arguments: object) -> dict:
        code, out, err = footage("search", archive, *arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return run


def test_several_texts_with_weights_and_one_that_is_not_wanted(ask) -> None:
    parts = {
        text: {hit["clip_id"]: hit["score"] for hit in ask(text, "--clips")["hits"]} for text in ("dog", "run", "sea")
    }
    found = ask("dog", "--and", "run", "--weight", 3, "--weight", 1, "--not", "sea", "--not-weight", 0.2, "--clips")
    assert found["text"] == "3 x dog, run, not sea"
    assert len(found["hits"]) == CLIPS
    for hit in found["hits"]:
        dog, run, sea = (scores[hit["clip_id"]] for scores in parts.values())
        assert hit["score"] == pytest.approx(0.75 * dog + 0.25 * run - 0.2 * sea, abs=1e-3)


def test_wordings_and_templates(ask) -> None:
    scores = [
        {hit["clip_id"]: hit["score"] for hit in ask(text, "--clips")["hits"]}
        for text in ("a film of dog", "dog", "a film of hound", "hound")
    ]
    found = ask("dog", "--wording", "hound", "--template", "{}", "--template", "a film of {}", "--clips")
    for hit in found["hits"]:
        assert hit["score"] == pytest.approx(sum(each[hit["clip_id"]] for each in scores) / 4, abs=1e-3)


def test_a_clip_of_a_file_finds_itself_and_a_clip_of_the_archive_others(ask, pile: Path) -> None:
    """The window round 1 s of a 2 s scene is the very clip that was indexed."""
    best = ask("--like", pile / "sub/up.mp4", "--at", SCENE_S / 2, "--clips")["hits"][0]
    assert best["uri"].endswith("sub/up.mp4")
    assert best["recall_score"] == pytest.approx(1, abs=2e-3)
    others = ask("--like-clip", best["clip_id"], "--clips")["hits"]
    assert len(others) == CLIPS - 1
    assert best["clip_id"] not in {hit["clip_id"] for hit in others}


def test_a_picture_can_be_searched_with(ask, tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), (200, 30, 30)).save(tmp_path / "red.png")
    found = ask("--image", tmp_path / "red.png", "--clips")
    assert len(found["hits"]) == CLIPS
    assert found["text"].startswith("picture ")


def test_a_filter_bounds_what_is_found(ask, footage, archive: Path) -> None:
    found = ask("dog", "--where", "uri like '%/up.mp4' or start_s >= 4", "--clips")
    assert {(Path(hit["uri"]).name, hit["start_s"]) for hit in found["hits"]} == {
        ("up.mp4", 0.0),
        ("three scenes.mp4", 4.0),
    }
    assert found["share"] == pytest.approx(2 / CLIPS)
    _, out, _ = footage("search", archive, "dog", "--where", "start_s >= 4")
    assert "the filter lets 16.7 % through" in " ".join(out.split())


def test_tags_can_be_filtered_by(ask, footage, archive: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("left\nright\n")
    _, out, _ = footage("tag", archive, tmp_path / "labels.txt", "--top", 1, "--json")
    tags = {tag["clip_id"]: tag["label"] for tag in json.loads(out)["tags"]}
    found = ask("dog", "--where", "label = 'left'", "--clips")
    assert {hit["clip_id"] for hit in found["hits"]} == {clip for clip, label in tags.items() if label == "left"}


def test_moments_carry_their_clips_and_pages_go_on(ask) -> None:
    found = ask("dog", "--margin", 1000, "--same", 2)
    assert sorted(len(hit["clips"]) for hit in found["hits"]) == [1, 2, 3]
    assert all(hit["start_s"] == 0 for hit in found["hits"])
    assert not found["has_more"]
    pages = [ask("dog", "--margin", 1000, "--same", 2, "--top", 2, "--page", page) for page in (1, 2)]
    assert pages[0]["has_more"]
    assert [hit["rank"] for page in pages for hit in page["hits"]] == [1, 2, 3]
    assert [hit["clip_id"] for page in pages for hit in page["hits"]] == [hit["clip_id"] for hit in found["hits"]]
    one_each = ask("dog", "--margin", 0, "--same", 2, "--per-video", 1)
    assert len({hit["video_id"] for hit in one_each["hits"]}) == len(one_each["hits"]) == len(VIDEOS)
    assert one_each["left_out"] == len(ask("dog", "--margin", 0, "--same", 2, "--per-video", 0)["hits"]) - len(VIDEOS)


def test_explain_shows_both_scores_both_ranks_and_what_decided(footage, archive: Path) -> None:
    code, out, _ = footage("search", archive, "dog", "--explain", "--clips")
    assert code == 0
    assert all(name in out for name in ("rank", "score", "cosine", "plain", "by cosine", "by score", "decided by"))
    assert out.count(" both ") + out.count("re-rank") == CLIPS
    _, out, _ = footage("search", archive, "dog", "--explain", "--clips", "--no-rerank")
    assert out.count("recall") == CLIPS


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ((), 2, "expected something to look for"),
        (("--not", "sea"), 2, "expected something to look for"),
        (("--and", "a", "--wording", "b"), 2, "expected a TEXT"),
        (("dog", "--like", "{pile}/sub/up.mp4", "--at", "1", "--at", "2"), 2, "2 --at for 1 --like"),
        (("dog", "--weight", "1", "--weight", "2"), 1, "error: 2 weights for 1 parts"),
        (("dog", "--weight", "0"), 1, "expected numbers over 0"),
        (("dog", "--template", "a film"), 1, "expected one {} in it"),
        (("dog", "--where", "colour = 'red'"), 1, "there is no column colour"),
        (("dog", "--where", "uri = read_text('/etc/passwd')"), 1, "the function read_text is not allowed"),
        (("dog", "--page", "0"), 1, "error: --page 0 is no page"),
        (("dog", "--per-video", "-1"), 1, "expected no negative number"),
        (("--like-clip", "0000000000000000"), 1, "the archive has no clip 0000000000000000"),
        (("--like", "{pile}/sub/up.mp4", "--at", "99"), 1, "expected --at from 0 to 2"),
        (("--like", "{pile}/broken.mp4"), 1, "no video container we read"),
        (("--like", "{pile}/lost.mp4"), 1, "error: "),
        (("--image", "{pile}/notes.md"), 1, "cannot be read"),
    ],
)
def test_mistakes_end_as_one_clear_sentence(footage, arguments, code, sentence, archive: Path, pile: Path) -> None:
    ended, out, err = footage("search", archive, *(argument.replace("{pile}", str(pile)) for argument in arguments))
    assert (ended, out) == (code, "")
    assert sentence in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err


# --- eval-search


@pytest.fixture
def queries(pile: Path) -> Path:
    file = pile / "queries.csv"
    with file.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerows([("text", "uri", "start_s", "end_s"), ("goes up", "sub/up.mp4", "", "")])
        rows.writerows([("grows", "three scenes.mp4", 4.5, 5.5), ("lost", "lost.mp4", "", "")])
    return file


def test_a_search_is_evaluated_as_table_json_and_report(footage, archive: Path, queries: Path, tmp_path: Path) -> None:
    code, out, err = footage("eval-search", archive, queries, "--html", tmp_path / "report.html", "--all")
    assert code == 0
    assert all(name in out for name in ("R@1", "R@5", "R@10", "mAP", "median rank", "latency p99", "re-ranked"))
    assert "1 right answers are of videos that are not in the archive" in " ".join(out.split())
    assert "report:" in err
    assert "“goes up”" in (tmp_path / "report.html").read_text()
    code, out, _ = footage("eval-search", archive, queries, "--json")
    found = json.loads(out)
    assert code == 0
    assert [query["text"] for query in found["queries"]] == ["goes up", "grows", "lost"]
    assert found["queries"][0]["reranked"]["ranks"] in ([1], [2], [3])
    assert found["queries"][2]["missing"] == 1
    assert found["reranked"]["recall_at_10"] == pytest.approx(2 / 3)


def test_a_report_that_cannot_be_written_is_told_before_the_work(footage, archive: Path, queries: Path) -> None:
    code, _, err = footage("eval-search", archive, queries, "--html", "/nowhere/report.html")
    assert code == 1
    assert "cannot be written" in err
