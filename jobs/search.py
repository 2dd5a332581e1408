"""`footage search`: from words, pictures and clips to moments."""

from __future__ import annotations

from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs import console
from jobs.arguments import ArchivePlace

if TYPE_CHECKING:
    from pipeline.filters import Filter
    from pipeline.moments import Grouping
    from pipeline.queries import Query
    from pipeline.search import Answer, SearchSettings
    from schemas.records import Hit

Texts = list[str] | None  # an option that may be given several times


def search(
    archive: ArchivePlace,
    text: Annotated[str | None, typer.Argument(help="What to look for, in words.")] = None,
    and_: Annotated[Texts, typer.Option("--and", help="Another text to look for; may be repeated.")] = None,
    not_: Annotated[Texts, typer.Option("--not", help="A text to keep away from; may be repeated.")] = None,
    wording: Annotated[Texts, typer.Option(help="TEXT in other words; scores are averaged.")] = None,
    template: Annotated[Texts, typer.Option(help='What is said of each text, such as "a video of {}".')] = None,
    image: Annotated[list[Path] | None, typer.Option(help="A picture to look like.")] = None,
    like: Annotated[Texts, typer.Option(help="A video file to be like, at the moment of --at.")] = None,
    at: Annotated[list[float] | None, typer.Option(help="Seconds into each --like; else its middle.")] = None,
    like_clip: Annotated[Texts, typer.Option(help="The id of a clip of the archive to be like.")] = None,
    weight: Annotated[
        list[float] | None,
        typer.Option(help="One for each of TEXT, --and, --image, --like, --like-clip, in this order."),
    ] = None,
    not_weight: Annotated[
        float | None, typer.Option(help="Of each --not, beside 1 for all else; 0.5 unless given.")
    ] = None,
    where: Annotated[str | None, typer.Option(help="Which clips may be found: an SQL condition on columns.")] = None,
    top: Annotated[int, typer.Option(help="How many hits.")] = 10,
    page: Annotated[int, typer.Option(help="Which page of so many hits.")] = 1,
    min_score: Annotated[float | None, typer.Option(help="Leave out hits that score less.")] = None,
    per_video: Annotated[int, typer.Option(help="Most moments of one video; 0 for all.")] = 3,
    margin: Annotated[float, typer.Option(help="How much less a neighbour may score and join a moment.")] = 1.0,
    same: Annotated[float, typer.Option(help="Cosine from which two places show the same; over 1: none do.")] = 0.995,
    clips: Annotated[bool, typer.Option("--clips", help="A hit for each window, nothing merged or folded.")] = False,
    depth: Annotated[int | None, typer.Option(help="How many clips are re-ranked; 200 or more unless given.")] = None,
    no_rerank: Annotated[bool, typer.Option("--no-rerank", help="Rank by the plain text vector alone.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show both scores and ranks, and what decided.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a contact sheet, one self-contained page.")] = None,
    model: Annotated[str | None, typer.Option(help="Where the model is now, if it was moved.")] = None,
    space: Annotated[
        str | None, typer.Option(help="A space that `footage info` lists, if not the serving one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Find the moments that fit texts, pictures or clips best."""
    if text is None and not (and_ or image or like or like_clip):
        raise typer.BadParameter("expected something to look for: TEXT, --image, --like or --like-clip")
    with console.without_garbage_collection():
        texts = _texts(text, and_, wording)
        query = _query(texts, not_, template, (image, like, at, like_clip), weight, not_weight)
        settings = _settings(
            None if clips else _grouping(per_video, margin, same),
            top=top, page=page, min_score=min_score, depth=depth, rerank=not no_rerank,
        )  # fmt: skip
        _report(
            _answer(archive, query, settings, where, (model, space)), archive, html, as_json=as_json, explain=explain
        )


def _texts(text: str | None, others: Texts, wordings: Texts) -> list[tuple[str, ...]]:
    """All texts that are wanted, each with its wordings."""
    if wordings and text is None:
        raise typer.BadParameter("--wording says TEXT in other words; expected a TEXT")
    first = [] if text is None else [(text, *(wordings or ()))]
    return [*first, *((other,) for other in others or ())]


def _query(
    texts: list[tuple[str, ...]],
    unwanted: Texts,
    templates: Texts,
    seen: tuple[list[Path] | None, Texts, list[float] | None, Texts],
    weights: list[float] | None,
    unwanted_weight: float | None,
) -> Query:
    """What is looked for; weights go by the order in which parts are named in the help."""
    from pipeline import queries, sources
    from pipeline.queries import UNWANTED_WEIGHT, Example, Known, Phrase, Query, Still

    images, files, moments, clip_ids = seen
    if moments and len(moments) != len(files or ()):
        raise typer.BadParameter(f"{len(moments)} --at for {len(files or ())} --like; expected one for each, or none")
    given = queries.weights(weights, len(texts) + sum(len(each or ()) for each in (images, files, clip_ids)))
    at_s: list[float | None] = list(moments) if moments else [None] * len(files or ())
    return Query(
        phrases=tuple(Phrase(wordings, next(given)) for wordings in texts),
        stills=tuple(Still(file, next(given)) for file in images or ()),
        examples=tuple(
            Example(sources.to_uri(file), at, next(given)) for file, at in zip(files or (), at_s, strict=True)
        ),
        known=tuple(Known(clip_id, next(given)) for clip_id in clip_ids or ()),
        unwanted=tuple(
            Phrase((each,), UNWANTED_WEIGHT if unwanted_weight is None else unwanted_weight) for each in unwanted or ()
        ),
        templates=tuple(templates or ("{}",)),
    )


def _grouping(per_video: int, margin: float, same: float) -> Grouping:
    """How clips become moments."""
    from pipeline.moments import Grouping

    return Grouping(per_video=per_video, margin=margin, same=None if same > 1 else same)


def _settings(grouping: Grouping | None, **shown: Any) -> SearchSettings:
    """Which part of the answer is shown."""
    from pipeline.search import SearchSettings

    return SearchSettings(grouping=grouping, **shown)


def _answer(
    archive: str, query: Query, settings: SearchSettings, where: str | None, served: tuple[str | None, str | None]
) -> Answer:
    """What the archive has, after a word of caution where the model needs one."""
    from pipeline import search as searching
    from pipeline import serving

    opened = serving.open_space(archive, *served)
    console.caution(opened.notes)
    condition: Filter | None = None
    if where is not None:
        from pipeline import filters

        condition = filters.of_condition(opened.archive, opened.space, where)
    return searching.ask(opened, query, settings, condition)


def _report(answer: Answer, archive: str, html: Path | None, *, as_json: bool, explain: bool) -> None:
    """Hits as a page if asked for, and as JSON or a table."""
    if html is not None:
        from pipeline import contact_sheet

        contact_sheet.write(answer, archive, html)
    if as_json:
        said = asdict(answer)
        del said["thumbnails"]
        console.print_json(said)
        return
    _print(answer, explain=explain)
    if html is not None:
        console.messages().print(f"contact sheet: {html.absolute()}", soft_wrap=True, markup=False)


def _print(answer: Answer, *, explain: bool) -> None:
    """Hits as a table, those of a video together, and why they stand where they do as another."""
    from rich.table import Table
    from rich.text import Text

    from pipeline.contact_sheet import timecode
    from pipeline.search import by_video

    folder = _common_folder([hit.uri for hit in answer.hits])
    table = Table(caption=_caption(answer))
    for name in ("rank", "score", "cosine", "from", "to"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(Text(f"video in {folder}" if folder else "video"), overflow="fold")
    for hit in (hit for group in by_video(answer.hits) for hit in group):
        numbers = str(hit.rank), f"{hit.score:.2f}", f"{hit.recall_score:.3f}"
        table.add_row(*numbers, timecode(hit.start_s), timecode(hit.end_s), Text(_name(hit, folder)))
    console.results().print(table)
    if explain:
        _print_why(answer)


def _print_why(answer: Answer) -> None:
    """Both scores and both ranks of each hit's best clip among all candidates, and what decided."""
    from rich.table import Table

    table = Table()
    for name in ("rank", "cosine", "by cosine", "plain", "score", "by score", "decided by"):
        table.add_column(name, justify="right", no_wrap=True)
    for hit in answer.hits:
        recall = f"{hit.recall_score:.3f}", f"{hit.recall_rank}.", f"{hit.plain_score:.2f}"
        table.add_row(str(hit.rank), *recall, f"{hit.score:.2f}", f"{hit.model_rank}.", hit.decided_by)
    console.results().print(table)


def _name(hit: Hit, folder: str) -> str:
    """A hit's video, and in how many more places it can be seen."""
    name = hit.uri.removeprefix(folder)
    return f"{name} (and the same in {len(hit.folded)} more)" if hit.folded else name


def _caption(answer: Answer) -> str:
    """What was searched, and what is not shown."""
    parts = [f"{len(answer.hits)} hits, {answer.searched} clips searched in {answer.took_s:.2f} s"]
    if answer.share is not None:
        parts.append(f"the filter lets {100 * answer.share:.3g} % through")
    if answer.left_out:
        parts.append(f"{answer.left_out} more moments of these videos with --per-video 0")
    if answer.has_more:
        parts.append(f"more with --page {answer.page + 1}")
    return "; ".join(parts)


def _common_folder(uris: list[str]) -> str:
    """The folder that all hits lie below, with its slash: said once, it leaves the rows room for names."""
    folders = [uri.split("/")[:-1] for uri in uris]  # commonpath would take a slash out of a URL
    shared = takewhile(lambda names: len(set(names)) == 1, zip(*folders, strict=False))
    return "".join(f"{names[0]}/" for names in shared)
