"""Parts of all videos: every video is of exactly one, for ever."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import keys
from pipeline.portions import Portion
from schemas.errors import InputError


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), unique=True), st.integers(1, 50))
def test_every_uri_is_of_exactly_one(uris: list[str], count: int) -> None:
    portions = [Portion(number, count) for number in range(1, count + 1)]
    assert all(sum(portion.has(uri) for portion in portions) == 1 for uri in uris)


def test_parts_are_of_about_one_size_and_stay_what_they_are() -> None:
    places = keys.of_texts([f"/videos/{number:06}.mp4" for number in range(100_000)])
    sizes = [int(Portion(number, 16).has_places(places).sum()) for number in range(1, 17)]
    assert sum(sizes) == 100_000
    assert max(sizes) < 1.05 * 100_000 / 16
    uris = ["/videos/a.mp4", "/videos/b.mp4", "s3://bucket/c.mp4", "/videos/ä.mp4", "/videos/d.mkv", ""]
    owner = [next(n for n in range(1, 5) if Portion(n, 4).has(uri)) for uri in uris]
    assert Counter(owner).keys() <= {1, 2, 3, 4}
    assert owner == OWNERS, "archives of shards would no longer fit their shards"


OWNERS = [2, 2, 2, 3, 4, 3]


@pytest.mark.parametrize("text", ["", "3", "1/0", "a/b", "1/4/2", "-1/4", "1.0/4"])
def test_what_names_no_shard_is_an_error(text: str) -> None:
    with pytest.raises(InputError, match="names no shard; expected two numbers such as 1/8"):
        Portion.named(text)


@pytest.mark.parametrize("text", ["0/4", "5/4"])
def test_shards_are_counted_from_one(text: str) -> None:
    with pytest.raises(InputError, match=f"there is no shard {text}; expected one from 1/4 to 4/4"):
        Portion.named(text)


def test_a_shard_is_said_as_it_is_named() -> None:
    assert str(Portion.named(" 2/8 ")) == "2/8"
    assert Portion.stored({"number": 2, "count": 8}) == Portion(2, 8)
    assert Portion.stored(None) is None
