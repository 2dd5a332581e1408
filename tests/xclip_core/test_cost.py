"""What models cost: the figures of the specification, whose counting was checked against measured FLOPs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from xclip_core import cost
from xclip_core.catalogue import catalogue
from xclip_core.released import ARCHITECTURES, RELEASED

# Spec §10: architecture, T, S, parameters in M, vision, context and fixed prompt in GMAC, pair in M, text in GMAC.
ROWS = [
    ("B/32", 8, 224, 196.59, 35.82, 0.019, 0.051, 5.34, 2.980),
    ("B/32", 16, 224, 196.59, 71.65, 0.019, 0.051, 5.34, 2.980),
    ("B/16", 8, 224, 194.93, 141.10, 0.077, 0.206, 5.64, 2.980),
    ("B/16", 16, 224, 194.93, 282.21, 0.077, 0.206, 5.64, 2.980),
    ("B/16", 32, 224, 194.94, 564.42, 0.077, 0.206, 5.64, 2.980),
    ("L/14", 8, 224, 575.67, 650.18, 0.201, 0.604, 12.58, 6.650),
    ("L/14", 16, 336, 576.01, 3060.02, 0.453, 1.359, 13.57, 6.650),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}-{row[1]}-{row[2]}")
def test_costs_are_the_specifications(row):
    arch, frames, image_size, parameters, vision, context, prompt, pair, text = row
    config = replace(ARCHITECTURES[arch], frames=frames, image_size=image_size)
    assert cost.parameter_count(config) / 1e6 == pytest.approx(parameters, abs=0.006)
    assert cost.vision_macs(config) / 1e9 == pytest.approx(vision, abs=0.006)
    assert cost.context_macs(config) / 1e9 == pytest.approx(context, abs=0.0006)
    assert cost.prompt_macs(config) / 1e9 == pytest.approx(prompt, abs=0.0006)
    assert cost.pair_macs(config) / 1e6 == pytest.approx(pair, abs=0.006)
    assert cost.text_macs(config) / 1e9 == pytest.approx(text, abs=0.0006)
    assert cost.clip_macs(config) == cost.vision_macs(config) + cost.context_macs(config)


def test_stored_bytes_are_those_of_the_packers():
    import numpy as np

    from pipeline.contexts import PACKERS
    from tests.models import TINY

    context = np.ones((TINY.patches, TINY.embed_dim), np.float32)
    stored = cost.stored_bytes(TINY)
    assert stored["context_int8"] == len(PACKERS["int8"](context))
    assert stored["context_float16"] == len(PACKERS["float16"](context))
    assert stored["embedding"] == 4 * TINY.embed_dim


def test_the_catalogue_has_every_name_once():
    entries = catalogue()
    assert [entry.name for entry in entries] == ["footage-tiny", *RELEASED]
    assert entries[0].where == "embedded"
    assert {entry.where for entry in entries[1:]} <= {"cached", "to fetch"}


def test_the_table_of_the_docs_is_the_catalogue():
    table = Path(__file__).parents[2].joinpath("docs", "models.md").read_text(encoding="utf-8")
    entries = catalogue()
    for entry in entries:
        cells = (
            f"`{entry.name}`",
            entry.architecture,
            str(entry.frames),
            str(entry.image_size),
            f"{entry.parameters / 1e6:.1f} M",
            f"{4 * entry.parameters / 1e9:.2f} GB",
            f"{entry.gmac_per_clip:.1f}",
            f"{entry.embedding_bytes / 1e3:.1f} kB + {entry.context_bytes / 1e3:.1f} kB",
            entry.knows,
        )
        assert f"| {' | '.join(cells)} |" in table
    costs = table.partition("| name | arch |")[2].partition("\n\n")[0]
    assert len(costs.splitlines()) == 2 + len(entries), "a row of no model"
