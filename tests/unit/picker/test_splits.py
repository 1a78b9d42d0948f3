"""Shares of target models."""

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_picker.splits import EvenSequence, ModelSplit, Target


def make_split(*weights: int) -> ModelSplit:
    targets = tuple(Target(name=f"v{n}", weight=weight) for n, weight in enumerate(weights))
    return ModelSplit(model="chat", targets=targets)


def drawn(split: ModelSplit, count: int, start: int = 0) -> Counter[str | None]:
    sequence = EvenSequence(start)
    return Counter(split.target_at(sequence.next()) for _ in range(count))


def test_a_split_without_targets_stands_for_its_own_name() -> None:
    assert drawn(ModelSplit(model="chat"), 3) == {None: 3}


def test_equal_weights_share_equally() -> None:
    found = drawn(make_split(1, 1, 1, 1), 4000)

    assert max(found.values()) - min(found.values()) <= 8


def test_ninety_to_ten_is_near_exact_over_any_two_thousand_requests() -> None:
    for start in range(0, 1 << 64, 1 << 59):
        # Half a percentage point would be 10 requests; independent draws miss by 13 as a rule.
        assert abs(drawn(make_split(90, 10), 2000, start)["v1"] - 200) <= 6


def test_a_rare_target_is_spread_out_and_not_bunched() -> None:
    split = make_split(99, 1)
    sequence = EvenSequence()
    turns = [n for n in range(2000) if split.target_at(sequence.next()) == "v1"]

    gaps = [b - a for a, b in itertools.pairwise(turns)]
    # Three-distance theorem: the gaps of such a sequence take at most three values.
    assert len(set(gaps)) <= 3


@pytest.mark.parametrize("weights", [(0, 0), (0,)], ids=["two", "one"])
def test_a_name_whose_targets_all_weigh_nothing_is_reserved(weights: tuple[int, ...]) -> None:
    assert make_split(*weights).reserved
    assert not make_split(*weights, 1).reserved
    assert not ModelSplit(model="chat").reserved


@given(st.lists(st.integers(0, 1_000_000), min_size=1, max_size=10), st.integers(0, 2**64 - 1))
def test_a_target_of_weight_zero_is_never_drawn(weights: list[int], point: int) -> None:
    split = make_split(*weights)
    if not split.reserved:
        name = split.target_at(point)
        assert name is not None
        assert {each.name: each.weight for each in split.targets}[name] > 0


@given(
    st.lists(st.integers(1, 100), min_size=2, max_size=5),
    st.integers(0, 2**64 - 1),
    st.integers(100, 1000),
)
def test_shares_follow_the_weights(weights: list[int], start: int, count: int) -> None:
    found = drawn(make_split(*weights), count, start)

    for number, weight in enumerate(weights):
        # The discrepancy of this sequence grows with log(n): below 1 + 2 log2(n) requests.
        expected = count * weight / sum(weights)
        assert abs(found[f"v{number}"] - expected) <= 1 + 2 * count.bit_length()


def test_a_share_is_drawn_evenly_and_its_ends_are_exact() -> None:
    sequence = EvenSequence(7)

    assert not any(sequence.next_below(0.0) for _ in range(1000))
    assert all(sequence.next_below(1.0) for _ in range(1000))
    assert abs(sum(sequence.next_below(0.25) for _ in range(1000)) - 250) <= 5
