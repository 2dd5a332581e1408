"""`footage eval-search`: how well an archive finds what is known to be in it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs import console
from jobs.arguments import ArchivePlace

if TYPE_CHECKING:
    from pipeline.search_evaluation import Asked, Ranking, SearchEvaluation


def eval_search(
    archive: ArchivePlace,
    queries: Annotated[
        Path, typer.Argument(metavar="QUERIES.csv", help="Columns text, uri and optionally start_s, end_s.")
    ],
    template: Annotated[list[str] | None, typer.Option(help="What is said of each text; may be repeated.")] = None,
    depth: Annotated[int, typer.Option(help="How many candidates are ranked.")] = 200,
    html: Annotated[Path | None, typer.Option(help="Also write a report with the misses as contact sheets.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show all queries in the report.")] = False,
    model: Annotated[str | None, typer.Option(help="Where the model is now, if it was moved.")] = None,
    space: Annotated[
        str | None, typer.Option(help="A space that `footage info` lists, if not the serving one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask queries whose right answers are known: R@k, mAP, median rank, latency, with and without re-ranking."""
    from pipeline import evaluation_report, search_evaluation, search_report, serving

    if html is not None:
        evaluation_report.check(html)
    labelled = search_evaluation.read_queries(queries)
    opened = serving.open_space(archive, model, space)
    console.caution(opened.notes)
    found = search_evaluation.evaluate(opened, labelled, tuple(template or ("{}",)), depth)
    if html is not None:
        search_report.write(found, archive, html, everything=everything)
    if as_json:
        console.print_json(_object(found))
        return
    _print(found)
    if html is not None:
        console.messages().print(f"report: {html.absolute()}", soft_wrap=True, markup=False)


def _object(found: SearchEvaluation) -> dict[str, Any]:
    """Figures, and each query with its ranks."""
    return {
        "model": found.model,
        "searched": found.searched,
        "depth": found.depth,
        "plain": asdict(found.plain),
        "reranked": asdict(found.reranked) if found.reranked else None,
        "queries": [_asked(each) for each in found.asked],
    }


def _asked(asked: Asked) -> dict[str, Any]:
    """One query."""
    return {
        "text": asked.query.text,
        "answers": len(asked.query.truths),
        "missing": asked.missing,
        "plain": _ranked(asked.plain),
        "reranked": _ranked(asked.reranked) if asked.reranked else None,
    }


def _ranked(ranking: Ranking) -> dict[str, Any]:
    """What a query found in one order."""
    return {"ranks": ranking.ranks, "average_precision": ranking.average_precision, "took_s": ranking.took_s}


def _print(found: SearchEvaluation) -> None:
    """Figures as a table, and what was missed."""
    from rich.table import Table

    from pipeline import search_report
    from pipeline.search_evaluation import PAGE

    table = Table(title=f"{len(found.asked)} queries, {found.searched} clips")
    for name in ("", "by cosine", "re-ranked"):
        table.add_column(name, justify="right" if name else "left")
    for row in search_report.figure_rows(found):
        table.add_row(*row)
    out = console.results()
    out.print(table)
    misses = found.misses(PAGE)
    out.print(f"{len(misses)} of {len(found.asked)} show no right answer among the first {PAGE} hits")
    lost = sum(each.missing for each in found.asked)
    if lost:
        out.print(f"{lost} right answers are of videos that are not in the archive, and count as not found")
