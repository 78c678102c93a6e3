"""How long no API server was ready: what the tests on nodes measure it with."""

from __future__ import annotations

import pytest

from tests.lab.kubernetes.watch import sum_up

Answers = list[tuple[float, str]]


@pytest.mark.parametrize(
    ("one", "other", "none"),
    [
        ([(0, "200"), (1, "-"), (3, "200"), (9, "200")], [(0, "200"), (9, "200")], 0),
        ([(0, "200"), (1, "-"), (3, "200")], [(2, "200"), (4, "-"), (6, "200")], 1),
        ([(0, "200"), (1, "500"), (5, "200")], [(0, "200"), (2, "-"), (9, "-")], 5),
        ([(0, "-"), (4, "200")], [(0, "200"), (4, "200")], 0),
    ],
    ids=["slow answers", "one after the other", "both at once", "away from the beginning"],
)
def test_only_what_is_away_everywhere_counts(one: Answers, other: Answers, none: float) -> None:
    """From the last good answer to the next one; between two good ones it was ready."""
    seen = sum_up({"m1": one, "m2": other})
    assert seen.longest_without_any == none
