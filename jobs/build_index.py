"""`footage build-index`: the vector index of an archive, made anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs import console
from jobs.arguments import ArchivePlace

if TYPE_CHECKING:
    from pipeline.index_files import VectorIndex


def build_index(
    archive: ArchivePlace,
    memory: Annotated[float, typer.Option(help="GB of memory that making and searching it may take.")] = 8.0,
    recall: Annotated[float, typer.Option(help="Least part of an exact search's hits that it must find.")] = 0.99,
    space: Annotated[
        str | None, typer.Option(help="A space that `footage info` lists, if not the serving one.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be made, and what it takes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make the vector index anew, as `footage index` makes it at its end.

    Up to 200,000 clips are compared one by one; more are sorted into lists and coded as finely as memory allows. What
    a search then finds is measured with texts and clips against comparing all; if it is too little, the search is
    widened or the code made finer.
    """
    from pipeline import flows
    from pipeline.index_plan import GB, Rules

    rules = Rules(memory_bytes=round(memory * GB), recall=recall)
    plan = flows.index_estimate(archive, space=space, rules=rules)
    if not as_json:
        console.messages().print(plan.why(), soft_wrap=True, markup=False)
    if dry_run:
        if as_json:
            console.print_json(_planned(plan))
        return
    made = flows.build_index(archive, space=space, rules=rules)
    if as_json:
        console.print_json(_planned(plan) | {"segments": segments(made)})
        return
    _print(made)


def _planned(plan: Any) -> dict[str, Any]:
    """A plan for JSON."""
    return {
        "clips": plan.edges[-1],
        "kind": plan.kind.name,
        "size_bytes": plan.size_bytes,
        "memory_bytes": plan.memory_bytes,
        "expected_s": plan.expected_s,
    }


def segments(made: VectorIndex) -> list[dict[str, Any]]:
    """What an index is made of."""
    return [
        {
            "kind": segment.kind.name,
            "lists": segment.kind.lists,
            "probes": segment.probes,
            "clips": segment.count,
            "recall": made.recall.get(segment.name),
        }
        for segment in made.segments
    ]


def _print(made: VectorIndex) -> None:
    """Segments as a table."""
    from rich.table import Table

    table = Table(caption=f"{made.count} clips, version {made.videos_version} of the videos")
    for name in ("kind", "clips", "lists", "looked into", "recall@10", "recall@100"):
        table.add_column(name, justify="left" if name == "kind" else "right")
    for said in segments(made):
        worst = dict.fromkeys(("at_10", "at_100"), "exact")
        if said["recall"]:
            groups = said["recall"].values()
            worst = {name: f"{min(group[name] for group in groups):.3f}" for name in worst}
        lists = (str(said["lists"]), str(said["probes"])) if said["lists"] else ("", "")
        table.add_row(said["kind"], str(said["clips"]), *lists, worst["at_10"], worst["at_100"])
    console.results().print(table)
