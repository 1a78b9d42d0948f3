from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_plugin.weighted import Entry, NoShareError, Wanted, current_shares, resplit


def entries(**weights: int) -> list[Entry]:
    """Managed entries, those with a name that starts with x aside."""
    return [
        Entry(item=name, weight=weight, managed=not name.startswith("x"))
        for name, weight in weights.items()
    ]


# Worked by hand.
@pytest.mark.parametrize(
    ("before", "shares", "blocked", "managed", "others"),
    [
        pytest.param(
            entries(a=1, b=1), {"a": 100, "b": 0}, (), {"a": 100, "b": 0}, {}, id="first-deploy"
        ),
        pytest.param(
            entries(a=100, b=0), {"a": 90, "b": 10}, (), {"a": 90, "b": 10}, {}, id="a-step"
        ),
        pytest.param(entries(a=1, b=0), {"a": 100, "b": 0}, (), {"a": 1, "b": 0}, {}, id="same"),
        pytest.param(
            entries(a=90, b=10),
            {"a": 50, "b": 50},
            ("b",),
            {"a": 90, "b": 10},
            {},
            id="a-blocked-raise-leaves-the-weights",
        ),
        pytest.param(
            entries(a=50, b=50),
            {"a": 90, "b": 10},
            ("b",),
            {"a": 90, "b": 10},
            {},
            id="a-blocked-item-may-fall",
        ),
        pytest.param(
            entries(a=1, x=1, b=1),
            {"a": 90, "b": 10},
            (),
            {"a": 9, "b": 1},
            {1: 5},
            id="another-keeps-its-third",
        ),
        pytest.param(
            entries(a=1, x=0, b=1), {"a": 90, "b": 10}, (), {"a": 90, "b": 10}, {1: 0}, id="idle"
        ),
        pytest.param(
            entries(old=100, b=0),
            {"a": 100, "b": 0},
            (),
            {"a": 100, "b": 0, "old": 0},
            {},
            id="an-item-of-the-past-gets-nothing",
        ),
    ],
)
def test_new_weights(
    before: list[Entry],
    shares: dict[str, int],
    blocked: tuple[str, ...],
    managed: dict[str, int],
    others: dict[int, int],
) -> None:
    wanted = Wanted(shares=shares, maximum=100, stable="a", blocked=blocked)
    found = resplit(before, wanted)
    assert (dict(found.managed), dict(found.others)) == (managed, others)


def test_there_is_no_share_to_split_where_only_others_have_weight() -> None:
    with pytest.raises(NoShareError):
        resplit(entries(a=0, x=5), Wanted(shares={"a": 100}, maximum=100, stable="a"))


weights = st.integers(0, 1000)


@given(
    before=st.dictionaries(st.sampled_from("abcxy"), weights, min_size=1),
    desired=st.integers(0, 100),
    blocked=st.booleans(),
)
def test_the_managed_part_keeps_its_share_and_is_never_nothing(
    before: dict[str, int], desired: int, blocked: bool
) -> None:
    found = entries(**{name: weight for name, weight in before.items() if name not in "xy"})
    found += [
        Entry(item=name, weight=weight, managed=False)
        for name, weight in before.items()
        if name in "xy"
    ]
    managed_before = sum(entry.weight for entry in found if entry.managed)
    others_before = sum(entry.weight for entry in found if not entry.managed)
    wanted = Wanted(
        shares={"a": 100 - desired, "b": desired},
        maximum=100,
        stable="a",
        blocked={"b"} if blocked else set(),
    )
    if not managed_before and others_before:
        with pytest.raises(NoShareError):
            resplit(found, wanted)
        return
    split = resplit(found, wanted)
    managed, others = sum(split.managed.values()), sum(split.others.values())
    assert managed > 0
    if managed_before:
        assert managed * others_before == managed_before * others
    now = current_shares(found).get("b", Fraction(0))
    limit = min(Fraction(desired, 100), now) if blocked else Fraction(desired, 100)
    if split.exact:
        assert Fraction(split.managed["b"], managed) == limit
    again = [
        Entry(item=name, weight=weight, managed=True) for name, weight in split.managed.items()
    ]
    again += [
        Entry(item=str(at), weight=weight, managed=False) for at, weight in split.others.items()
    ]
    if split.exact:
        assert not resplit(again, wanted).changed
