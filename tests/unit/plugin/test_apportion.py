from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_plugin.apportion import LIMIT, apportion

TENTH = [Fraction(9, 10), Fraction(1, 10)]


# Worked by hand; the second row is plugin-walk's example "pair 1+1 with a third ref at 1".
@pytest.mark.parametrize(
    ("fractions", "total", "others", "managed", "scaled", "exact"),
    [
        pytest.param(TENTH, 100, [], (90, 10), (), True, id="fits-as-it-is"),
        pytest.param(TENTH, 2, [1], (9, 1), (5,), True, id="smallest-factor-that-holds-it"),
        pytest.param(TENTH, 60, [30, 10], (54, 6), (30, 10), True, id="third-keeps-its-number"),
        pytest.param([Fraction(1), Fraction(0)], 2, [1], (2, 0), (1,), True, id="all-on-one"),
        pytest.param(
            TENTH, 999_999, [1], (899_999, 100_000), (1,), False, id="no-room-above-the-limit"
        ),
        pytest.param(
            [Fraction(999_999, 10**6), Fraction(1, 10**6)],
            900_000,
            [100_000],
            (899_999, 1),
            (100_000,),
            False,
            id="a-share-is-never-rounded-to-nothing",
        ),
    ],
)
def test_weights_hold_the_split(
    fractions: list[Fraction],
    total: int,
    others: list[int],
    managed: tuple[int, ...],
    scaled: tuple[int, ...],
    exact: bool,
) -> None:
    found = apportion(fractions, total, others)
    assert (found.managed, found.others, found.exact) == (managed, scaled, exact)


@st.composite
def splits(draw: st.DrawFn) -> tuple[list[Fraction], int, list[int]]:
    shares = draw(st.lists(st.integers(0, 1000), min_size=1, max_size=4).filter(any))
    total = draw(st.integers(1, LIMIT))
    others = draw(st.lists(st.integers(0, LIMIT), max_size=3))
    return [Fraction(share, sum(shares)) for share in shares], total, others


@given(splits())
def test_sums_shares_and_limits_hold_for_any_split(
    split: tuple[list[Fraction], int, list[int]],
) -> None:
    fractions, total, others = split
    found = apportion(fractions, total, others)
    assert max([*found.managed, *found.others]) <= LIMIT
    # Others keep their share of the whole: all numbers grew by one factor.
    assert sum(found.managed) * sum(others) == total * sum(found.others)
    if found.exact:
        whole = sum(found.managed)
        assert [Fraction(weight, whole) for weight in found.managed] == fractions


def test_shares_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match="can't split 10"):
        apportion([Fraction(1, 2)], 10, [])
