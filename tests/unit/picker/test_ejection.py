"""Ejection of endpoints that fail, and slow start of new ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_picker.ejection import EjectionRules, Ejector, rules_from

POOL = tuple(f"10.0.0.{n}:80" for n in range(8))
BAD = POOL[0]


def make_ejector(members: int = 8, **rules: float) -> Ejector:
    ejector = Ejector(EjectionRules(**rules))  # type: ignore[arg-type]
    ejector.members(POOL[:members], (), at=0)
    return ejector


def fail(ejector: Ejector, address: str, times: int, at: float = 0.0) -> None:
    for _ in range(times):
        ejector.failed(address, at=at, reason="5xx")


def test_failures_in_a_row_eject() -> None:
    ejector = make_ejector()

    fail(ejector, BAD, 2)
    assert ejector.health(BAD) == 1
    ejected = ejector.failed(BAD, at=1.0, reason="5xx")

    assert ejected is not None
    assert (ejected.address, ejected.seconds) == (BAD, 10.0)
    assert ejector.health(BAD) == 0
    assert ejector.ejected == {BAD: "5xx"}


def test_who_failed_last_or_comes_back_wants_a_look() -> None:
    ejector = Ejector()
    ejector.members(POOL, [], at=0.0)
    assert not ejector.is_suspect(POOL[0])
    ejector.failed(POOL[0], at=0.0, reason="5xx")
    assert ejector.is_suspect(POOL[0])
    ejector.succeeded(POOL[0])
    assert not ejector.is_suspect(POOL[0])
    ejector.members([*POOL, "new"], ["new"], at=1.0)
    assert ejector.is_suspect("new")
    ejector.update(at=100.0)
    assert not ejector.is_suspect("new")


def test_a_success_between_them_begins_the_count_anew() -> None:
    ejector = make_ejector()
    for _ in range(3):
        fail(ejector, BAD, 2)
        for _ in range(4):
            ejector.succeeded(BAD)

    assert ejector.health(BAD) == 1


def test_a_high_failure_rate_ejects_too() -> None:
    ejector = make_ejector()
    for _ in range(5):
        ejector.failed(BAD, at=0, reason="5xx")
        ejector.succeeded(BAD)

    ejector.failed(BAD, at=0, reason="5xx")
    assert ejector.health(BAD) == 0


def test_it_comes_back_slowly_and_goes_at_the_first_failure() -> None:
    ejector = make_ejector()
    fail(ejector, BAD, 3)

    assert ejector.update(at=9.9) == {}
    assert ejector.update(at=10.0) == {BAD: pytest.approx(0.1)}
    assert ejector.update(at=15.0) == {BAD: pytest.approx(0.55)}
    ejected = ejector.failed(BAD, at=15.0, reason="reset")

    assert ejected is not None
    assert ejected.seconds == 20.0


def test_after_its_slow_start_it_has_its_full_part() -> None:
    ejector = make_ejector()
    fail(ejector, BAD, 3)
    ejector.update(at=10.0)

    assert ejector.update(at=20.0) == {BAD: 1.0}
    assert ejector.update(at=21.0) == {}


def test_ejections_grow_up_to_a_limit() -> None:
    ejector = make_ejector(slow_start_s=0)
    lengths = []
    at = 0.0
    for _ in range(8):
        ejected = None
        while ejected is None:
            ejected = ejector.failed(BAD, at=at, reason="5xx")
        lengths.append(ejected.seconds)
        at += ejected.seconds
        ejector.update(at=at)

    assert lengths == [10, 20, 40, 80, 160, 300, 300, 300]


def test_a_new_endpoint_starts_slowly() -> None:
    ejector = make_ejector(members=7)
    ejector.members(POOL, (POOL[7],), at=100.0)

    assert ejector.health(POOL[7]) == pytest.approx(0.1)
    ejector.update(at=105.0)
    assert ejector.health(POOL[7]) == pytest.approx(0.55)


@given(st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=200), st.integers(1, 8))
def test_never_more_than_half_of_the_pool_is_out_and_never_the_last_one(
    outcomes: list[tuple[int, bool]], members: int
) -> None:
    ejector = make_ejector(members=members)
    for number, (which, good) in enumerate(outcomes):
        if good:
            ejector.succeeded(POOL[which])
        else:
            ejector.failed(POOL[which], at=number * 0.01, reason="5xx")

        out = len(ejector.ejected)
        assert out <= max(1, members // 2)
        assert out < members


def test_what_most_of_the_pool_does_ejects_nobody_further() -> None:
    # A bad request that every server answers with 500 must not take servers out.
    ejector = make_ejector()
    for _ in range(3):
        for address in POOL:
            fail(ejector, address, 1)

    assert len(ejector.ejected) == 0


def test_an_endpoint_that_left_is_forgotten() -> None:
    ejector = make_ejector()
    fail(ejector, BAD, 3)
    ejector.members(POOL[1:], (), at=1)
    ejector.members(POOL, (), at=2)

    assert ejector.health(BAD) == 1


def test_rules_come_from_parameters_by_their_names() -> None:
    rules = rules_from({"consecutive": 5, "baseSeconds": 30, "maxPart": 0.25})

    assert rules == EjectionRules(consecutive=5, base_s=30, max_part=0.25)
    with pytest.raises(ValueError, match=r"unknown baseSecond; known are .*baseSeconds"):
        rules_from({"baseSecond": 30})
