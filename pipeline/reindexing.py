"""The scheduled job: every place that the runs of an archive know, with the settings of the space that serves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline import flows, runs, sources
from pipeline.archive import Archive
from pipeline.flows import IndexReport
from pipeline.progress import Progress
from pipeline.settings import Decoder, EngineName, FramePrecision, IndexSettings, Policy
from schemas.errors import InputError


def reindex(  # noqa: PLR0913  # as `flows.index`, with places and settings from the archive
    folder: str | Path,
    *,
    policy: Policy | None = None,
    forget: Sequence[str] = (),
    engine: EngineName | None = None,
    decoder: Decoder | None = None,
    precision: FramePrecision | None = None,
    decode_resource: str | None = None,
    embed_resource: str | None = None,
    dry_run: bool = False,
    watch: Callable[[Progress], None] | None = None,
) -> IndexReport:
    """Brings an archive up to date with all places it knows; those in `forget` are given up for good.

    Raises RefusedToRetire when one of the others is missing: nothing is changed then, anywhere.
    """
    archive = Archive.open(folder)
    known = runs.places(archive)
    given_up = tuple(map(sources.to_uri, forget))
    if unknown := [place for place in given_up if place not in known]:
        raise InputError(f"the archive was not indexed from {unknown[0]}; it was from: {', '.join(known)}")
    kept = [str(sources.to_path(place)) for place in known if place not in given_up]
    stored = IndexSettings.stored(runs.serving_run(archive)["settings"]["index"])
    # Of the machines that a run was on before nothing is remembered: this one may be on others.
    settings = replace(
        stored,
        engine=engine or stored.engine,
        decoder=decoder or stored.decoder,
        precision=precision or stored.precision,
        device="auto",
        decode_resource=decode_resource,
        embed_resource=embed_resource,
    )
    portion = runs.portion(archive)
    policy = replace(policy or Policy(), whole_archive=True, forget=given_up, portion=portion)
    return flows.index(kept, str(archive.folder), settings, policy=policy, dry_run=dry_run, watch=watch)
