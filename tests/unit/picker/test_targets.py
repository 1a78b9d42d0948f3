"""Targets of a model split: even, sticky, with a control alias of the canary's size."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_picker.messages import Sample
from inference_picker.splits import ModelSplit, Target
from inference_picker.targets import Drawn, TargetDraw, with_control

ALIASES = frozenset({"v1", "v1-control", "v2"})


def split(canary: int, *, stable: str = "v1", canary_first: bool = False) -> ModelSplit:
    targets = [Target(name="v1", weight=100 - canary), Target(name="v2", weight=canary)]
    return ModelSplit(
        model="chat", targets=tuple(reversed(targets) if canary_first else targets), stable=stable
    )


def draw(
    found: ModelSplit,
    *,
    key: str | None = None,
    names: frozenset[str] = ALIASES,
    draws: TargetDraw | None = None,
) -> Drawn:
    drawn = (draws or TargetDraw()).draw(found, "chat", key=key, names=names)
    assert drawn is not None
    return drawn


@pytest.mark.parametrize("canary_first", [False, True])
def test_the_control_alias_gets_as_much_as_the_canary(canary_first: bool) -> None:
    draws = TargetDraw()
    found = Counter(
        draw(split(10, canary_first=canary_first), draws=draws).name for _ in range(2000)
    )
    assert found["v2"] == pytest.approx(200, abs=6)
    assert found["v1-control"] == pytest.approx(200, abs=6)
    assert found["v1"] == pytest.approx(1600, abs=9)


def test_each_request_says_what_it_is_compared_as() -> None:
    draws = TargetDraw()
    found = {
        (drawn.name, drawn.sample) for drawn in (draw(split(30), draws=draws) for _ in range(100))
    }
    assert found == {
        ("v1", Sample.BACKGROUND),
        ("v1-control", Sample.CONTROL),
        ("v2", Sample.CANARY),
    }


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (split(10), frozenset({"v1", "v2"})),
        (split(10, stable=""), ALIASES),
        (split(0), ALIASES),
        (split(100), ALIASES),
    ],
    ids=["alias-not-loaded", "stable-unknown", "no-canary", "all-canary"],
)
def test_without_alias_stable_or_canary_the_split_is_as_written(
    wanted: ModelSplit, names: frozenset[str]
) -> None:
    assert with_control(wanted, names) == wanted


def test_an_alias_that_is_a_target_itself_is_left_alone() -> None:
    targets = (*split(10).targets, Target(name="v1-control", weight=5))
    own = ModelSplit(model="chat", targets=targets, stable="v1")
    assert with_control(own, ALIASES) == own


@given(st.text(), st.integers(0, 100), st.integers(0, 100), st.booleans())
def test_a_rising_weight_moves_users_one_way_only(
    key: str, one: int, other: int, canary_first: bool
) -> None:
    low, high = sorted((one, other))
    first, second = (draw(split(each, canary_first=canary_first), key=key) for each in (low, high))
    assert second.name == "v2" or first.name != "v2"
    assert first.bucket == second.bucket != ""


@given(st.text())
def test_a_user_keeps_its_target_across_pickers(key: str) -> None:
    one, other = (draw(split(30), key=key, draws=TargetDraw(start)) for start in (0, 99))
    assert one == other


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=4).filter(any),
    st.integers(0, 3),
)
def test_the_control_alias_takes_only_from_stable(weights: list[int], stable: int) -> None:
    targets = tuple(Target(name=f"t{at}", weight=weight) for at, weight in enumerate(weights))
    own = ModelSplit(model="chat", targets=targets, stable=f"t{stable}")
    whole = with_control(own, {f"t{stable}-control"})
    assert sum(each.weight for each in whole.targets) == sum(weights)
    kept = {each.name: each.weight for each in whole.targets}
    assert all(kept[each.name] == each.weight for each in targets if each.name != own.stable)
