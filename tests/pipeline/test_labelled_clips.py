"""Clips whose labels are known: rows read or refused with their line, and which clips they cover."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.label_sets import Label, LabelSet
from pipeline.labelled_clips import LabelledSpan, labels_of_clip, read_labelled_clips
from schemas.errors import InputError

LABELS = LabelSet((Label("run", ("x",), ("jog",)), Label("sit", ("y",))))


def written(folder: Path, text: str) -> Path:
    (folder / "labelled.csv").write_text(text, encoding="utf-8")
    return folder / "labelled.csv"


def test_rows_name_videos_stretches_and_labels(tmp_path: Path) -> None:
    text = "uri,start_s,end_s,label\n/v/a.mp4,0,10,jog\n/v/a.mp4,0,10,sit\nb.mp4,,,run\ns3://x/c.mp4,5,7.5,\n"
    assert read_labelled_clips(written(tmp_path, text), LABELS) == {
        "/v/a.mp4": [LabelledSpan(0, 10, "run"), LabelledSpan(0, 10, "sit")],
        str(tmp_path / "b.mp4"): [LabelledSpan(None, None, "run")],
        "s3://x/c.mp4": [LabelledSpan(5, 7.5, None)],
    }


def test_times_may_be_left_out_altogether(tmp_path: Path) -> None:
    found = read_labelled_clips(written(tmp_path, "uri,label\n/v/a.mp4,none of these\n"), LABELS)
    assert found == {"/v/a.mp4": [LabelledSpan(None, None, None)]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uri,label\n/v/a.mp4,fly\n", "line 2: 'fly' is no label of the set"),
        ("uri,label\n,run\n", "line 2: the uri is empty"),
        ("uri,start_s,end_s,label\n/v/a.mp4,3,,run\n", "line 2: one of start_s and end_s is there without the other"),
        ("uri,start_s,end_s,label\n/v/a.mp4,3,2,run\n", "line 2: 3 to 2 s is no stretch of a video"),
        ("uri,start_s,end_s,label\n/v/a.mp4,x,2,run\n", "line 2: .*expected times in seconds"),
        ("path,label\n/v/a.mp4,run\n", "has no column uri"),
        ("uri,label\n", "names no clips"),
        ('uri,label\n"/v/a.mp4,run\n', "expected CSV in UTF-8"),
    ],
)
def test_rows_that_cannot_be_meant_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_labelled_clips(written(tmp_path, text), LABELS)


def test_a_clip_has_what_covers_half_of_it_and_is_unknown_where_nothing_does() -> None:
    spans = [LabelledSpan(0, 10, "run"), LabelledSpan(5, 15, "sit"), LabelledSpan(30, 40, None)]
    assert labels_of_clip(spans, 0, 10) == {"run", "sit"}
    assert labels_of_clip(spans, 10, 20) == {"sit"}
    assert labels_of_clip(spans, 12, 22) is None
    assert labels_of_clip(spans, 30, 40) == frozenset()
    assert labels_of_clip([LabelledSpan(None, None, "run")], 50, 60) == {"run"}
