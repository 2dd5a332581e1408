"""What a run says of where it decoded: in its row, in its report, and not to whoever looks at the table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jobs import report as told
from pipeline import decoders, indexing, run_report
from pipeline.archive import Archive
from pipeline.decoders import Choice
from pipeline.flows import IndexReport, index
from pipeline.reindexing import reindex
from schemas.errors import InputError

on_a_cpu = pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="there is a device")


@on_a_cpu
def test_where_there_is_no_device_cpus_decode_and_the_run_says_so(indexed: tuple[Path, IndexReport]) -> None:
    folder, report = indexed
    assert report.decoders == ("h264 on cpu: there is no CUDA device",)
    assert report.fallbacks == ()
    row = Archive.open(folder).runs()[-1]
    assert row["report"]["decoders"] == ["h264 on cpu: there is no CUDA device"]
    assert row["settings"]["index"]["decoder"] == "auto"
    assert "Decoders: h264 on cpu: there is no CUDA device." in run_report.markdown(report)


@on_a_cpu
def test_asking_for_a_device_that_is_not_there_changes_nothing(pile: Path, tmp_path: Path, settings_for) -> None:
    with pytest.raises(InputError, match="needs a CUDA device"):
        index(pile, tmp_path / "archive", settings_for(decoder="cuda"))
    assert not (tmp_path / "archive").exists()


@on_a_cpu
def test_what_a_gpu_does_not_decode_is_loud_in_the_row_and_silent_in_the_table(
    pile: Path, tmp_path: Path, settings_for, indexed, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    # As on a machine whose probe chose NVDEC, which then cannot be used.
    monkeypatch.setattr(decoders, "choices", lambda *_: (Choice("h264", "cuda", "as asked for"),))
    report = index(pile, tmp_path / "archive", settings_for())
    assert (report.indexed, report.clips) == (indexed[1].indexed, indexed[1].clips)
    (line,) = report.fallbacks
    assert line.startswith("h264: 3 units on a CPU after all, the first since ")
    assert Archive.open(tmp_path / "archive").runs()[-1]["report"]["fallbacks"] == [line]
    assert "Decoded on a CPU after all: h264: 3 units" in run_report.markdown(report)
    told.tell(replace(report, failed=0, failures=()), as_json=False)
    assert "after all" not in capsys.readouterr().out


def test_a_decoder_and_a_precision_are_no_part_of_a_space_and_the_next_run_may_have_others(
    own_pile: Path, tmp_path: Path, settings_for
) -> None:
    first = index(own_pile, tmp_path / "archive", settings_for())
    again = reindex(tmp_path / "archive", decoder="cpu", precision="bfloat16")
    assert (again.space, again.planned, again.decoders) == (first.space, 0, ())
    said = Archive.open(tmp_path / "archive").runs()[-1]["settings"]["index"]
    assert (said["decoder"], said["precision"]) == ("cpu", "bfloat16")
    reindex(tmp_path / "archive")
    assert Archive.open(tmp_path / "archive").runs()[-1]["settings"]["index"]["precision"] == "bfloat16"


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_stage_that_decodes_on_a_gpu_has_a_share_of_one_and_the_others_none(is_shared, settings_for) -> None:
    from pipeline import nvdec, pools

    sizes = pools.shared(pools.before_probe()) if is_shared else pools.before_probe()
    chosen = (Choice("h264", "cuda" if is_shared else "cpu", ""), Choice("vp9", "cpu", ""))

    class Job:
        settings = settings_for(device="cuda")
        space = type("Space", (), {"model": type("M", (), {"image_size": 8}), "sampling": settings.sampling(8)})

    stage = indexing._decode_stage(Job, sizes, chosen)
    assert (stage.num_gpus > 0, stage.wake is not None, stage.hostile) == (is_shared, is_shared, True)
    if is_shared:
        assert stage.work.func is nvdec.decode_units
        assert stage.work.args == (8, "cuda", frozenset({"h264"}))
