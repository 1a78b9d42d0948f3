"""What a picker holds on to, whatever becomes of the annotation."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_common.governing import Governor
from inference_common.shares import PoolShares, digest, encode
from inference_picker.holding import Held, State, hold

GOVERNOR = Governor(rollout="llm/chat", uid="u", stable="h1")


def text(counter: int = 1, canary: int = 10, uid: str = "u") -> str:
    return encode(
        PoolShares(
            rollout="llm/chat",
            uid=uid,
            counter=counter,
            stable="h1",
            weights={"h1": 100 - canary, "h2": canary},
        )
    )


APPLIED = hold(Held(), text(5), GOVERNOR, known=True)


def test_a_whole_value_is_applied_and_acknowledged_by_its_digest() -> None:
    assert APPLIED.document() == {
        "digest": digest(text(5)),
        "state": "applied",
        "shares": {"h1": 90, "h2": 10},
        "problem": "",
    }


@pytest.mark.parametrize("spoiled", [None, "", "{", "null"], ids=str)
def test_a_value_that_is_gone_or_unreadable_changes_nothing(spoiled: str | None) -> None:
    found = hold(APPLIED, spoiled, GOVERNOR, known=True)
    assert (found.shares, found.state) == (APPLIED.shares, State.KEPT)
    assert found.problem


def test_an_older_value_is_refused_but_another_rollouts_is_not() -> None:
    found = hold(APPLIED, text(4, canary=50), GOVERNOR, known=True)
    assert (found.shares, found.state) == (APPLIED.shares, State.REFUSED)
    again = hold(APPLIED, text(4, canary=50, uid="v"), GOVERNOR, known=True)
    assert again.state is State.APPLIED


def test_a_value_that_the_plugins_own_mark_contradicts_is_refused() -> None:
    mark = json.dumps({"llm/chat": {"uid": "u", "refs": [["", "h1", 90], ["", "h2", 10]]}})
    found = hold(APPLIED, text(6, canary=50), GOVERNOR, known=True, mark=mark)
    assert (found.shares, found.state) == (APPLIED.shares, State.REFUSED)
    assert hold(APPLIED, text(6), GOVERNOR, known=True, mark=mark).state is State.APPLIED


@pytest.mark.parametrize("mark", ["", "?", "[]", '{"llm/chat": {"uid": "v", "refs": []}}'], ids=str)
def test_a_mark_that_tells_nothing_decides_nothing(mark: str) -> None:
    found = hold(APPLIED, text(6, canary=50), GOVERNOR, known=True, mark=mark)
    assert found.state is State.APPLIED


@pytest.mark.parametrize("spoiled", [None, "{"], ids=str)
def test_after_a_restart_without_a_value_only_stable_is_served(spoiled: str | None) -> None:
    found = hold(Held(), spoiled, GOVERNOR, known=True)
    assert found.shares is not None
    assert dict(found.shares.weights) == {"h1": 1}
    assert found.state is State.KEPT
    assert hold(found, text(1), GOVERNOR, known=True).state is State.APPLIED


def test_a_pool_that_nobody_divides_is_served_whole() -> None:
    assert hold(Held(), None, None, known=True) == Held()
    assert hold(APPLIED, None, None, known=True) == Held()


def test_while_the_rollouts_are_not_known_nothing_is_let_go() -> None:
    assert hold(APPLIED, None, None, known=False).shares == APPLIED.shares


def test_before_the_first_version_is_available_every_pod_is_served() -> None:
    starting = Governor(rollout="llm/chat", uid="u", stable="")
    assert hold(Held(), None, starting, known=True).shares is None


@given(st.lists(st.none() | st.text(max_size=5) | st.integers(0, 6).map(text), max_size=8))
def test_the_canarys_share_never_rises_without_a_newer_value(texts: list[str | None]) -> None:
    held = hold(Held(), text(3, canary=20), GOVERNOR, known=True)
    newest = 3
    for each in texts:
        before = held
        held = hold(held, each, GOVERNOR, known=True)
        assert held.shares is not None
        if held.state is State.APPLIED:
            assert held.shares.counter >= newest
            newest = held.shares.counter
        else:
            assert held.shares == before.shares
