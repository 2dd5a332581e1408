"""Answers: the model's own scores of what recall found, best first, and the same every time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline import filters, indexes, stores
from pipeline import search as search_module
from pipeline.archive import Archive
from pipeline.contexts import unpack
from pipeline.index_plan import Rules
from pipeline.indexes import build
from pipeline.moments import Grouping
from pipeline.queries import Known, Phrase, Query, of_text
from pipeline.runs import serving_run
from pipeline.search import SearchSettings, ask, by_video, search, stored_tensors
from pipeline.serving import OpenSpace, open_space
from pipeline.settings import IndexSettings, space_of
from schemas.errors import ArchiveError, InputError, SpaceMismatch, WeightsError
from tests.models import WORDED, random_state, save_safetensors
from tests.pipeline.conftest import CLIPS, VIDEOS, run_row
from tests.pipeline.factories import NOON, commit, embedded, unit_of, video_row
from xclip_core import encode_text, encode_text_raw, encode_video_with_context
from xclip_core.captions import everyday_texts

QUERIES = ["a red square moves to the left", "snow", "Ein Hund läuft!"]
COLUMNS = ["clip_id", "video_id", "start_s", "end_s", "embedding", "context"]


def rows(opened: OpenSpace) -> list[dict]:
    return opened.archive.visible_clips(opened.space, COLUMNS).to_pylist()


def expected_scores(opened: OpenSpace, text: str) -> dict[str, float]:
    """The model's logit of every visible clip with a text, one clip at a time, from what is stored."""
    text_KE = encode_text_raw(opened.model, [text])
    found = {}
    for row in rows(opened):
        video_BE = torch.tensor(row["embedding"])[None]
        context_BPE = torch.from_numpy(unpack(row["context"], WORDED.patches, WORDED.embed_dim))[None]
        with torch.inference_mode():
            found[row["clip_id"]] = opened.model.score(video_BE, context_BPE, text_KE).item()
    return found


# --- scores


@pytest.mark.parametrize("code", ["float16", "int8"])
@pytest.mark.parametrize("text", QUERIES)
def test_a_hits_score_is_the_models_own_of_what_is_stored(code: str, text: str, stock: Callable) -> None:
    opened = stock(code)
    answer = search(opened, text, top=VIDEOS * CLIPS)
    expected = expected_scores(opened, text)
    assert {hit.clip_id: hit.score for hit in answer.hits} == pytest.approx(expected, abs=1e-4)
    order = sorted(expected, key=expected.__getitem__, reverse=True)
    assert [expected[hit.clip_id] for hit in answer.hits] == pytest.approx([expected[c] for c in order], abs=1e-4)


@pytest.mark.parametrize(("code", "bound"), [("float16", 0.006), ("int8", 0.06)])
def test_storing_costs_less_than_a_stated_part_of_a_logit(
    code: str, bound: float, stock: Callable, frames_of: Callable
) -> None:
    """Against the model's score of the frames themselves: logits from -3.5 to 4, off by 0.002 and 0.019 at most."""
    opened = stock(code)
    for text in QUERIES:
        text_KE = encode_text_raw(opened.model, [text])
        for hit in search(opened, text, top=VIDEOS * CLIPS).hits:
            clip = frames_of(hit.uri)[round(hit.start_s / 10)]
            with torch.inference_mode():
                pair = encode_video_with_context(opened.model, torch.from_numpy(clip)[None])
                exact = opened.model.score(*pair, text_KE).item()
            assert hit.score == pytest.approx(exact, abs=bound)


def test_the_prompt_changes_the_order_that_recall_gave(stock: Callable) -> None:
    """Otherwise nothing here would show that hits are ranked by the model and not by recall."""
    opened = stock("float16")
    answers = [search(opened, text, top=24) for text in QUERIES]
    assert any(
        [hit.clip_id for hit in answer.hits]
        != [hit.clip_id for hit in sorted(answer.hits, key=lambda hit: -hit.recall_score)]
        for answer in answers
    )


@pytest.mark.parametrize("code", ["none", "int8"])
@pytest.mark.parametrize("text", QUERIES)
def test_without_reranking_hits_are_in_the_order_of_the_dot_product(code: str, text: str, stock: Callable) -> None:
    opened = stock(code)
    answer = search(opened, text, top=10, rerank=False)
    stored = rows(opened)
    vectors = np.array([row["embedding"] for row in stored], np.float32)
    cosines = vectors @ encode_text(opened.model, [text])[0].numpy()
    order = np.argsort(-cosines)[:10]
    assert [hit.clip_id for hit in answer.hits] == [stored[place]["clip_id"] for place in order]
    assert [hit.recall_score for hit in answer.hits] == pytest.approx(cosines[order].tolist(), abs=1e-6)
    scale = opened.model.logit_scale.exp().item()
    assert [hit.score for hit in answer.hits] == pytest.approx((scale * cosines[order]).tolist(), abs=1e-4)
    assert not answer.reranked


# --- hits


def test_a_hit_says_where_to_look(stock: Callable) -> None:
    opened = stock("int8")
    stored = {row["clip_id"]: row for row in rows(opened)}
    uris = opened.archive.uris(opened.space)
    answer = search(opened, "snow", top=5)
    assert [hit.rank for hit in answer.hits] == [1, 2, 3, 4, 5]
    assert [hit.score for hit in answer.hits] == sorted((hit.score for hit in answer.hits), reverse=True)
    for hit in answer.hits:
        row = stored[hit.clip_id]
        assert (hit.video_id, hit.start_s, hit.end_s) == (row["video_id"], row["start_s"], row["end_s"])
        assert hit.uri == uris[hit.video_id]
    assert len(answer.thumbnails) == 5
    assert all(picture.startswith(b"RIFF") for picture in answer.thumbnails)
    assert (answer.text, answer.searched, answer.reranked) == ("snow", VIDEOS * CLIPS, True)


def test_what_is_gone_or_hidden_is_never_found(stock: Callable) -> None:
    answer = search(stock("int8"), "snow", top=1000)
    assert len(answer.hits) == VIDEOS * CLIPS
    assert {hit.uri for hit in answer.hits} == {f"/videos/{number}.mp4" for number in range(VIDEOS)}


@pytest.mark.parametrize("rerank", [True, False])
def test_the_same_question_has_the_same_answer_and_a_longer_page_begins_with_the_shorter(rerank, stock) -> None:
    opened = stock("int8")
    pages = [search(opened, "snow", top=top, rerank=rerank).hits for top in (3, 3, 12)]
    assert pages[0] == pages[1] == pages[2][:3]


@pytest.mark.parametrize("rerank", [True, False])
def test_ties_are_broken_by_id(rerank, own_stock: OpenSpace) -> None:
    stored = rows(own_stock)[0]
    row = video_row("/videos/copies.mp4", space=own_stock.space, clip_count=6)
    vectors = np.repeat(np.array([stored["embedding"]], np.float32), 6, axis=0)
    commit(own_stock.archive, [embedded(unit_of(row, 6), vectors, [stored["context"]] * 6)], [row])
    hits = search(own_stock, "snow", top=1000, rerank=rerank).hits
    copies = [hit.clip_id for hit in hits if hit.uri == row.uri]
    assert len({hit.score for hit in hits if hit.uri == row.uri}) == 1
    assert copies == sorted(copies)


def test_more_hits_than_recall_reaches_can_be_asked_for(stock: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "RECALL_DEPTH", 2)
    assert len(search(stock("int8"), "snow", top=10).hits) == 10


def test_the_second_stage_looks_deeper_than_the_page(stock: Callable) -> None:
    opened = stock("float16")
    expected = expected_scores(opened, QUERIES[0])
    (best,) = search(opened, QUERIES[0], top=1).hits
    assert best.score == pytest.approx(max(expected.values()), abs=1e-4)


def test_a_search_sees_what_was_committed_just_before(own_stock: OpenSpace) -> None:
    before = search(own_stock, "snow", top=100)
    gone = replace(video_row("/videos/3.mp4", space=own_stock.space), status="gone", revision=2)
    own_stock.archive.commit_videos([gone])
    after = search(own_stock, "snow", top=100)
    assert after.searched == before.searched - CLIPS
    assert [hit.clip_id for hit in after.hits] == [hit.clip_id for hit in before.hits if hit.uri != gone.uri]


def test_an_archive_with_nothing_in_it_has_no_hits(tiny_model, tmp_path) -> None:
    archive = Archive.create(tmp_path / "archive")
    opened = OpenSpace(archive, "0123456789ab", tiny_model)
    answer = search(opened, "snow")
    assert (answer.hits, answer.thumbnails, answer.searched) == ((), (), 0)


# --- what cannot be asked


@pytest.mark.parametrize("top", [0, -1])
def test_asking_for_no_hits_is_an_error(top: int, stock: Callable) -> None:
    with pytest.raises(InputError, match=f"--top {top} asks for no hits; expected at least 1"):
        search(stock("int8"), "snow", top=top)


@pytest.mark.parametrize(("text", "message"), [("", "is empty"), ("   ", "is empty"), ("word " * 100, "shorten it")])
def test_a_text_the_model_cannot_read_is_an_error(text: str, message: str, stock: Callable) -> None:
    with pytest.raises(InputError, match=message):
        search(stock("int8"), text)


def test_without_contexts_the_models_score_is_refused_and_two_ways_out_are_named(stock: Callable) -> None:
    with pytest.raises(ArchiveError, match=r"stores no prompt contexts.*search with --no-rerank, or index again"):
        search(stock("none"), "snow")


def test_a_context_of_another_size_is_an_error(own_stock: OpenSpace) -> None:
    row = video_row("/videos/odd.mp4", space=own_stock.space)
    vectors = np.zeros((2, WORDED.embed_dim), np.float32)
    commit(own_stock.archive, [embedded(unit_of(row), vectors, [b"short"] * 2)], [row])
    with pytest.raises(ArchiveError, match="a stored context has 5 bytes; expected"):
        search(own_stock, "snow")


# --- opening


def test_the_model_of_the_run_is_loaded(stock: Callable, tiny_model) -> None:
    opened = stock("int8")
    assert opened.model.provenance.weights_hash == tiny_model.provenance.weights_hash
    assert opened.space == space_of(tiny_model, IndexSettings(model="any")).id


def test_another_models_weights_are_refused_by_name(stock: Callable, tmp_path) -> None:
    other = save_safetensors(random_state(WORDED, seed=5), tmp_path)
    with pytest.raises(SpaceMismatch, match=r"the archive was indexed with weights [0-9a-f]{12}, and .*official"):
        open_space(stock("int8").archive.folder, str(other))


def test_the_same_weights_from_another_place_are_accepted(stock: Callable, tmp_path) -> None:
    moved = save_safetensors(random_state(WORDED), tmp_path)
    assert open_space(stock("int8").archive.folder, str(moved)).space == stock("int8").space


def test_a_model_that_was_lost_is_an_error(own_stock: OpenSpace, tmp_path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="there is no model"):
        open_space(own_stock.archive.folder, str(tmp_path / "lost.safetensors"))
    with pytest.raises(WeightsError, match="cannot be read"):
        open_space(own_stock.archive.folder, str(tmp_path / "broken.safetensors"))


def test_an_archive_that_was_never_indexed_says_what_to_run(tmp_path) -> None:
    archive = Archive.create(tmp_path / "archive")
    with pytest.raises(ArchiveError, match=r"nothing has been indexed into .*; run: footage index VIDEOS"):
        open_space(archive.folder)


def test_the_last_finished_run_serves_while_a_newer_one_is_under_way(own_stock: OpenSpace) -> None:
    settings = IndexSettings(model="newer")
    newer = space_of(own_stock.model, replace(settings, window_s=5.0))
    row = run_row(settings, newer, "started", "run-2")
    own_stock.archive.log_run({**row, "at": NOON.replace(hour=13), "report": None})
    assert serving_run(own_stock.archive)["space"] == own_stock.space
    own_stock.archive.log_run({**row, "at": NOON.replace(hour=14), "state": "finished"})
    assert serving_run(own_stock.archive)["space"] == newer.id


def test_before_any_run_has_finished_the_last_that_started_serves(tmp_path, tiny_model) -> None:
    archive = Archive.create(tmp_path / "archive")
    space = space_of(tiny_model, IndexSettings())
    archive.log_run({**run_row(IndexSettings(), space, "started"), "report": None})
    assert serving_run(archive)["space"] == space.id


def test_the_index_is_that_of_the_space(own_stock: OpenSpace) -> None:
    other = video_row("/videos/0.mp4", space="other")
    commit(own_stock.archive, [embedded(unit_of(other))], [other])
    assert build(own_stock.archive, own_stock.space, WORDED.embed_dim).count == VIDEOS * CLIPS


# --- queries of several parts, filters, moments, pages


def asked(opened: OpenSpace, query: Query | str, **settings) -> search_module.Answer:
    where = settings.pop("where", None)
    condition = None if where is None else filters.of_condition(opened.archive, opened.space, where)
    query = of_text(query) if isinstance(query, str) else query
    return ask(opened, query, SearchSettings(**settings), condition)


@pytest.mark.parametrize("text", QUERIES)
def test_reranked_scores_equal_the_models_own_to_the_bit(text: str, stock: Callable) -> None:
    """`model.score` of all candidates in the order of recall, with the contexts that are stored: the same numbers."""
    opened = stock("int8")
    hits = search(opened, text, top=VIDEOS * CLIPS).hits
    stored = {row["clip_id"]: row for row in rows(opened)}
    order = [hit.clip_id for hit in sorted(hits, key=lambda hit: hit.recall_rank)]
    with torch.inference_mode():
        tensors = stored_tensors(opened.model, [stored[clip_id] for clip_id in order])
        logits = opened.model.score(*tensors, encode_text_raw(opened.model, [text]))[:, 0].tolist()
    assert {hit.clip_id: hit.score for hit in hits} == dict(zip(order, logits, strict=True))


def test_more_candidates_than_one_pass_takes_have_the_same_scores(stock, monkeypatch) -> None:
    opened = stock("float16")
    whole = search(opened, "snow", top=24).hits
    monkeypatch.setattr(search_module, "CLIPS_PER_PASS", 7)
    parts = search(opened, "snow", top=24).hits
    assert [hit.clip_id for hit in parts] == [hit.clip_id for hit in whole]
    assert [hit.score for hit in parts] == pytest.approx([hit.score for hit in whole], abs=1e-5)


def test_a_text_that_is_not_wanted_takes_hits_down(stock: Callable) -> None:
    opened = stock("float16")
    query = Query(phrases=(Phrase(("snow",)),), unwanted=(Phrase((QUERIES[0],), 0.8),))
    wanted, unwanted = (expected_scores(opened, text) for text in ("snow", QUERIES[0]))
    for hit in asked(opened, query, top=24).hits:
        assert hit.score == pytest.approx(wanted[hit.clip_id] - 0.8 * unwanted[hit.clip_id], abs=1e-4)


@pytest.mark.parametrize("code", ["none", "int8"])
def test_a_clip_finds_what_is_like_it_and_not_itself_with_or_without_contexts(code: str, stock: Callable) -> None:
    opened = stock(code)
    stored = rows(opened)
    vectors = np.array([row["embedding"] for row in stored], np.float32)
    cosines = vectors @ vectors[5]
    hits = asked(opened, Query(known=(Known(stored[5]["clip_id"]),)), top=24).hits
    order = [place for place in np.argsort(-cosines) if place != 5]
    assert [hit.clip_id for hit in hits] == [stored[place]["clip_id"] for place in order]
    scale = opened.model.logit_scale.exp().item()
    assert [hit.score for hit in hits] == pytest.approx((scale * cosines[order]).tolist(), rel=1e-3)


@pytest.mark.parametrize("rerank", [True, False])
def test_a_filter_comes_before_the_search_and_not_after(rerank, stock: Callable) -> None:
    """The worst four of 24 clips are found, each with the rank and score that it has among themselves."""
    opened = stock("int8")
    everything = {hit.clip_id: hit for hit in search(opened, "snow", top=24, rerank=rerank).hits}
    worst = list(everything.values())[-1].uri
    answer = asked(opened, "snow", top=4, rerank=rerank, where=f"uri = '{worst}'")
    assert [hit.uri for hit in answer.hits] == [worst] * CLIPS
    assert [hit.rank for hit in answer.hits] == [1, 2, 3, 4]
    assert [hit.score for hit in answer.hits] == pytest.approx(
        [everything[hit.clip_id].score for hit in answer.hits], abs=1e-4
    )
    assert answer.share == pytest.approx(1 / VIDEOS)
    assert asked(opened, "snow", where="duration_s < 0").hits == ()


def test_pages_follow_one_another(stock: Callable) -> None:
    opened = stock("int8")
    whole = asked(opened, "snow", top=24)
    pages = [asked(opened, "snow", top=10, page=page) for page in (1, 2, 3, 4)]
    found = [(hit.rank, hit.clip_id, hit.score) for page in pages for hit in page.hits]
    assert found == [(hit.rank, hit.clip_id, hit.score) for hit in whole.hits]
    assert [page.has_more for page in pages] == [True, True, False, False]
    assert [len(page.thumbnails) for page in pages] == [10, 10, 4, 0]


def test_hits_below_a_score_are_left_out(stock: Callable) -> None:
    opened = stock("int8")
    whole = search(opened, "snow", top=24).hits
    assert asked(opened, "snow", top=24, min_score=whole[6].score).hits == whole[:7]


def test_moments_are_put_together_from_the_clips_that_are_found(stock: Callable) -> None:
    """With any margin, all four windows of a video are one moment; its score is that of the best of them."""
    opened = stock("int8")
    clips = search(opened, "snow", top=24).hits
    answer = asked(opened, "snow", grouping=Grouping(margin=1e9, same=None))
    assert len(answer.hits) == VIDEOS
    for hit in answer.hits:
        own = [clip for clip in clips if clip.video_id == hit.video_id]
        assert (hit.start_s, hit.end_s) == (min(c.start_s for c in own), max(c.end_s for c in own))
        assert (hit.score, hit.clip_id) == (own[0].score, own[0].clip_id)
        assert sorted(c.clip_id for c in hit.clips) == sorted(c.clip_id for c in own)
        assert {c.clip_id: c.score for c in hit.clips} == {c.clip_id: c.score for c in own}


def test_a_copy_of_a_clip_is_folded_into_it(own_stock: OpenSpace) -> None:
    stored = rows(own_stock)
    row = video_row("/videos/copy.mp4", space=own_stock.space, clip_count=1)
    copied = stored[0]
    vectors = np.array([copied["embedding"]], np.float32)
    commit(own_stock.archive, [embedded(unit_of(row, 1), vectors, [copied["context"]])], [row])
    answer = asked(own_stock, "snow", top=99, grouping=Grouping(margin=0.0, same=0.99999, per_video=0))
    pairs = [(hit.video_id, clip.video_id) for hit in answer.hits for clip in hit.folded]
    assert {copied["video_id"], row.video_id} in map(set, pairs)
    assert row.video_id in answer.uris, "where it was folded from can be said"
    assert len(answer.hits) == VIDEOS * CLIPS


def test_a_cap_on_the_moments_of_a_video_is_told(stock: Callable) -> None:
    answer = asked(stock("int8"), "snow", top=99, grouping=Grouping(margin=0.0, same=None, per_video=1))
    assert len({hit.video_id for hit in answer.hits}) == len(answer.hits) == VIDEOS
    assert answer.left_out == VIDEOS * (CLIPS - 1)


def test_what_decided_is_explained(stock: Callable) -> None:
    opened = stock("float16")
    plain = [hit.clip_id for hit in search(opened, QUERIES[0], top=24, rerank=False).hits]
    answer = search(opened, QUERIES[0], top=5)
    scale = opened.model.logit_scale.exp().item()
    for rank, hit in enumerate(answer.hits, start=1):
        assert hit.model_rank == rank
        assert plain[hit.recall_rank - 1] == hit.clip_id
        assert hit.plain_score == pytest.approx(scale * hit.recall_score, rel=1e-5)
        assert hit.decided_by == ("both" if hit.clip_id == plain[rank - 1] else "re-rank")
    assert {hit.decided_by for hit in search(opened, QUERIES[0], top=24, rerank=False).hits} == {"recall"}


def test_a_depth_bounds_what_is_reranked(stock: Callable) -> None:
    opened = stock("float16")
    plain = {hit.clip_id for hit in search(opened, "snow", top=6, rerank=False).hits}
    assert {hit.clip_id for hit in asked(opened, "snow", top=6, depth=6).hits} == plain


@pytest.mark.parametrize(
    ("wrong", "message"), [({"page": 0}, "--page 0 is no page"), ({"depth": 0}, "--depth 0 leaves nothing")]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SearchSettings(**wrong)


def test_hits_are_put_together_by_video_in_the_order_of_the_best(stock: Callable) -> None:
    hits = search(stock("int8"), "snow", top=24).hits
    groups = by_video(hits)
    assert sorted(hit.rank for group in groups for hit in group) == [hit.rank for hit in hits]
    assert [group[0].rank for group in groups] == sorted(group[0].rank for group in groups)
    assert all(len({hit.video_id for hit in group}) == 1 for group in groups)
    assert len(groups) == VIDEOS


def test_an_index_that_a_search_must_build_is_measured_with_texts_of_its_model(
    own_stock: OpenSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def watched(*given: object, rules: Rules, **more: object) -> object:
        asked.append(rules)
        return build(*given, rules=rules, **more)

    stores.remove_tree(own_stock.archive.folder / "indexes")
    monkeypatch.setattr(indexes, "build", watched)
    assert search(own_stock, QUERIES[0]).hits
    (rules,) = asked
    np.testing.assert_array_equal(rules.texts(), encode_text(own_stock.model, everyday_texts()).numpy())
