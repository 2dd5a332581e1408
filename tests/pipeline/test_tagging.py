"""Label files, the scores of labels, and tags in the archive and in files."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from pipeline import tag_files, tagged, tagging
from pipeline.archive import Archive
from pipeline.contexts import unpack
from pipeline.label_files import read_labels
from pipeline.label_sets import Label, LabelSet
from pipeline.serving import OpenSpace
from pipeline.tagged import Tag
from pipeline.tagging import TagReport, TagSettings
from schemas.errors import ArchiveError, InputError
from tests.models import WORDED
from tests.pipeline.conftest import CLIPS, VIDEOS
from tests.pipeline.factories import tag_table
from xclip_core import encode_text_raw

LABELS = LabelSet(
    (
        Label("run", ("a person runs", "somebody is running", "running fast")),
        Label("snow", ("snow",)),
        Label("a dog, asleep", ("a dog sleeps", "a sleeping dog")),
        Label("rain", ("it rains",)),
    )
)


def tag(opened: OpenSpace, labels: LabelSet, top: int = 3, **settings) -> TagReport:
    return tagging.tag(opened, labels, TagSettings(top=top, **settings))


def tags_of(opened: OpenSpace, labels: LabelSet = LABELS) -> tuple[Tag, ...]:
    """All tags of a label set, as exports have them."""
    return tuple(each for video in tagged.videos(opened.archive, opened.space, labels.id) for each in video.tags)


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def names(labels: LabelSet) -> list[str]:
    return [label.name for label in labels.labels]


# --- label files


def test_a_text_file_is_a_label_a_line(tmp_path: Path) -> None:
    labels = read_labels(written(tmp_path, "labels.txt", "# sports\nrunning\n\n  long jump  \nzażółć 🎉\n"))
    assert labels.labels == (
        Label("running", ("running",)),
        Label("long jump", ("long jump",)),
        Label("zażółć 🎉", ("zażółć 🎉",)),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("- run\n- long jump\n", [("run", ("run",)), ("long jump", ("long jump",))], id="a list"),
        pytest.param("run: a person runs\n", [("run", ("a person runs",))], id="one prompt"),
        pytest.param("run: [one, two]\njump: [three]\n", [("run", ("one", "two")), ("jump", ("three",))], id="many"),
        pytest.param("run:\njump: leaps\n", [("run", ("run",)), ("jump", ("leaps",))], id="no prompt: the name"),
        pytest.param("run: []\n", [("run", ("run",))], id="an empty list: the name"),
        pytest.param("2024: 7\n3: [1, 2]\n", [("2024", ("7",)), ("3", ("1", "2"))], id="numbers are words"),
        pytest.param("b: x\na: y\n", [("b", ("x",)), ("a", ("y",))], id="the order is kept"),
    ],
)
@pytest.mark.parametrize("name", ["labels.yaml", "labels.yml", "LABELS.YAML"])
def test_yaml_is_a_list_or_a_mapping_to_prompts(name: str, text: str, expected, tmp_path: Path) -> None:
    assert [(label.name, label.prompts) for label in read_labels(written(tmp_path, name, text)).labels] == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "run\njump\nrun\n", "names run more than once"),
        ("a.txt", "b\na\na\nb\n", "names a, b more than once"),
        ("a.yaml", "- run\n- jump\n- run\n", "names run more than once"),
        ("a.yaml", "1: x\n'1': y\n", "names 1 more than once"),
        ("a.txt", "", "holds no labels"),
        ("a.txt", "# nothing\n\n", "holds no labels"),
        ("a.yaml", "[]", "holds no labels"),
        ("a.yaml", "{}", "holds no labels"),
        ("a.yaml", "", "holds a NoneType; expected a list or a mapping"),
        ("a.yaml", "just a word", "holds a str; expected a list or a mapping"),
        ("a.yaml", "{unclosed: [", "is not YAML"),
        ("a.yaml", "!!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_label_files_that_cannot_be_meant_are_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_labels(written(tmp_path, name, text))


def test_a_yaml_mapping_that_names_a_label_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="names run more than once"):
        read_labels(written(tmp_path, "a.yaml", "run: one\njump: two\nrun: three\n"))


@pytest.mark.parametrize(
    "text", ["run: {prompts: [a, b]}\n", "- run: a person runs\n", "run: [[a, b]]\n", "run: [null]\n"]
)
def test_yaml_of_another_shape_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected"):
        read_labels(written(tmp_path, "a.yaml", text))


def test_a_label_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read .*expected UTF-8 text or YAML"):
        read_labels(tmp_path / "missing.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        read_labels(tmp_path / "binary.txt")
    with pytest.raises(InputError, match="cannot be read"):
        read_labels(tmp_path)


def test_a_label_set_is_known_by_its_labels_and_prompts_in_order() -> None:
    one, two = Label("a", ("x",)), Label("b", ("y",))
    base = LabelSet((one, two))
    assert base.id == LabelSet((Label("a", ("x",)), Label("b", ("y",)))).id
    assert len({base.id, LabelSet((two, one)).id, LabelSet((one,)).id, LabelSet((Label("a", ("z",)), two)).id}) == 4
    assert len(base.id) == 12


# --- scores


def by_clip(tags: tuple[Tag, ...]) -> dict[str, list[Tag]]:
    found = defaultdict(list)
    for each in tags:
        found[each.clip_id].append(each)
    return found


def model_logits(opened: OpenSpace) -> dict[str, dict[str, float]]:
    """The mean logit of each label's prompts for each clip: a clip and a prompt at a time, from what is stored."""
    found: dict[str, dict[str, float]] = {}
    columns = ["clip_id", "embedding", "context"]
    for row in opened.archive.visible_clips(opened.space, columns).to_pylist():
        video_BE = torch.tensor(row["embedding"])[None]
        context_BPE = torch.from_numpy(unpack(row["context"], WORDED.patches, WORDED.embed_dim))[None]
        found[row["clip_id"]] = {}
        for label in LABELS.labels:
            with torch.inference_mode():
                logits = [
                    opened.model.score(video_BE, context_BPE, encode_text_raw(opened.model, [prompt])).item()
                    for prompt in label.prompts
                ]
            found[row["clip_id"]][label.name] = sum(logits) / len(logits)
    return found


@pytest.fixture
def all_tags(own_stock: OpenSpace) -> tuple[Tag, ...]:
    assert tag(own_stock, LABELS, top=0).clips == VIDEOS * CLIPS
    return tags_of(own_stock)


def test_every_visible_clip_is_tagged(all_tags: tuple[Tag, ...]) -> None:
    assert len(by_clip(all_tags)) == VIDEOS * CLIPS
    assert {each.uri for each in all_tags} == {f"/videos/{number}.mp4" for number in range(VIDEOS)}


def test_a_labels_score_is_the_mean_of_its_prompts_logits(all_tags: tuple[Tag, ...], own_stock: OpenSpace) -> None:
    expected = model_logits(own_stock)
    for clip_id, tags in by_clip(all_tags).items():
        assert {each.label: each.score for each in tags} == pytest.approx(expected[clip_id], abs=1e-4)


def test_probabilities_are_the_softmax_of_the_scores(all_tags: tuple[Tag, ...]) -> None:
    for tags in by_clip(all_tags).values():
        assert sum(each.probability for each in tags) == pytest.approx(1, abs=1e-12)
        weights = [math.exp(each.score) for each in tags]
        assert [each.probability for each in tags] == pytest.approx([w / sum(weights) for w in weights], rel=1e-5)


def test_labels_come_best_first_with_their_ranks(all_tags: tuple[Tag, ...]) -> None:
    for tags in by_clip(all_tags).values():
        assert [each.rank for each in tags] == [1, 2, 3, 4]
        assert [each.score for each in tags] == sorted((each.score for each in tags), reverse=True)


@pytest.mark.parametrize(("top", "kept"), [(1, 1), (3, 3), (4, 4), (99, 4), (0, 4)])
def test_the_best_are_kept_and_their_probabilities_are_still_of_the_whole_set(
    top: int, kept: int, own_stock: OpenSpace
) -> None:
    tag(own_stock, LABELS, top=0)
    everything = by_clip(tags_of(own_stock))
    tag(own_stock, LABELS, top=top)
    found = by_clip(tags_of(own_stock))
    assert len(found) == VIDEOS * CLIPS
    for clip_id, tags in found.items():
        best = everything[clip_id][:kept]
        assert [(each.label, each.rank) for each in tags] == [(each.label, each.rank) for each in best]
        assert [each.probability for each in tags] == pytest.approx([each.probability for each in best], abs=1e-9)


def test_batches_of_clips_do_not_change_the_tags(own_stock: OpenSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    tag(own_stock, LABELS, top=0)
    whole = tags_of(own_stock)
    monkeypatch.setattr(tagging, "CLIPS_PER_BATCH", 5)
    assert tag(own_stock, LABELS, top=99).new == VIDEOS * CLIPS, "the same tags under other settings"
    parts = tags_of(own_stock)
    assert [(each.clip_id, each.label, each.rank) for each in parts] == [
        (each.clip_id, each.label, each.rank) for each in whole
    ]
    assert [each.score for each in parts] == pytest.approx([each.score for each in whole], abs=1e-4)


def test_labels_that_score_the_same_keep_the_order_of_the_file(own_stock: OpenSpace) -> None:
    names = [f"label {37 * number % 101}" for number in range(60)]
    same = LabelSet(tuple(Label(name, ("snow",)) for name in names))
    tag(own_stock, same, top=0)
    for tags in by_clip(tags_of(own_stock, same)).values():
        assert [each.label for each in tags] == names


def test_one_label_has_all_the_probability(own_stock: OpenSpace) -> None:
    labels = LabelSet((Label("snow", ("snow",)),))
    tag(own_stock, labels)
    assert {each.probability for each in tags_of(own_stock, labels)} == {1.0}


def test_tags_are_written_to_the_archive(own_stock: OpenSpace) -> None:
    report = tag(own_stock, LABELS, top=2)
    columns = ("clip_id", "video_id", "label", "rank", "probability", "score", "basis")
    stored = tag_table(own_stock.archive, own_stock.space).to_pylist()
    assert sorted(tuple(row[name] for name in columns) for row in stored) == sorted(
        tuple(getattr(each, name) for name in columns) for each in tags_of(own_stock)
    )
    assert {row["label_set"] for row in stored} == {LABELS.id} == {report.label_set}
    assert {row["space"] for row in stored} == {own_stock.space}


def test_tagging_again_replaces_and_other_label_sets_stay(own_stock: OpenSpace) -> None:
    other = LabelSet((Label("night", ("at night",)), Label("day", ("by day",))))
    tag(own_stock, other, top=1)
    for top in (3, 2):
        tag(own_stock, LABELS, top=top)
    sets = tag_table(own_stock.archive, own_stock.space)["label_set"].to_pylist()
    assert (sets.count(other.id), sets.count(LABELS.id)) == (24, 48)


def test_without_contexts_tagging_is_refused_and_nothing_is_written(stock: Callable) -> None:
    opened = stock("none")
    with pytest.raises(ArchiveError, match="stores no prompt contexts"):
        tag(opened, LABELS)
    assert tag_table(opened.archive, opened.space).num_rows == 0


def test_a_negative_number_of_labels_is_refused(own_stock: OpenSpace) -> None:
    with pytest.raises(InputError, match="--top -1 is not usable; expected 0 for all labels"):
        tag(own_stock, LABELS, top=-1)


def test_a_prompt_the_model_cannot_read_is_refused(own_stock: OpenSpace) -> None:
    with pytest.raises(InputError, match="the text '' is empty"):
        tag(own_stock, LabelSet((Label("run", ("",)),)))


def test_an_archive_with_nothing_in_it_has_no_tags(tiny_model, tmp_path: Path) -> None:
    opened = OpenSpace(Archive.create(tmp_path / "archive"), "0123456789ab", tiny_model)
    report = tag(opened, LABELS)
    assert (report.clips, report.new, report.labels, tags_of(opened)) == (0, 0, (), ())


# --- files


BASIS = "softmax, uncalibrated"
TAGS = tuple(
    Tag(f"{n:016x}", "v", uri, 10.0 * n, 10.0 * n + 10, 1, label, 0.1 + n / 10, -2.5 * n, BASIS)
    for n, (uri, label) in enumerate(
        [
            ("/videos/a.mp4", "run"),
            ('/videos/with, comma and "quotes".mp4', 'say "hello", twice'),
            ("/videos/new\nline.mp4", "zażółć 🎉"),
            ("/videos/=1+1.mp4", ""),
        ]
    )
)


def test_csv_reads_back_equal(tmp_path: Path) -> None:
    tag_files.write(TAGS, tmp_path / "tags.csv")
    with (tmp_path / "tags.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    kinds = {"start_s": float, "end_s": float, "rank": int, "probability": float, "score": float}
    assert [Tag(**{name: kinds.get(name, str)(value) for name, value in row.items()}) for row in rows] == list(TAGS)


def test_jsonl_reads_back_equal(tmp_path: Path) -> None:
    tag_files.write(TAGS, tmp_path / "tags.jsonl")
    lines = (tmp_path / "tags.jsonl").read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    assert [Tag(**json.loads(line)) for line in lines] == list(TAGS)
    assert "🎉" in lines[2]


def test_parquet_reads_back_equal(tmp_path: Path) -> None:
    tag_files.write(TAGS, tmp_path / "tags.parquet")
    assert [Tag(**row) for row in pq.read_table(tmp_path / "tags.parquet").to_pylist()] == list(TAGS)


@pytest.mark.parametrize("ending", tag_files.WRITERS)
def test_no_tags_make_a_file_that_can_be_read(ending: str, tmp_path: Path) -> None:
    tag_files.write((), tmp_path / f"tags{ending}")
    if ending == ".parquet":
        assert pq.read_table(tmp_path / "tags.parquet").column_names == list(asdict(TAGS[0]))
    if ending == ".csv":
        assert next(csv.reader([(tmp_path / "tags.csv").read_text(encoding="utf-8")])) == list(asdict(TAGS[0]))


def test_endings_in_capitals_are_the_same_endings(tmp_path: Path) -> None:
    tag_files.write(TAGS, tmp_path / "TAGS.CSV")
    assert (tmp_path / "TAGS.CSV").read_text(encoding="utf-8").startswith('"clip_id"')


@pytest.mark.parametrize("name", ["tags.xlsx", "tags", ".csv", "tags.csv.gz"])
def test_an_unknown_ending_is_refused_with_the_known_ones(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no known ending; expected one of \.csv, \.jsonl, \.parquet"):
        tag_files.write(TAGS, tmp_path / name)


def test_a_folder_that_is_not_there_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no folder .*missing to write tags\.csv into"):
        tag_files.check(tmp_path / "missing" / "tags.csv")
