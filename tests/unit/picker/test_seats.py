"""Seats of a model server, learned from pages that say how many run and wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_picker.readings import Readings
from inference_picker.seats import Seats


def read(seats: Seats, *pages: tuple[int, int], kv_usage: float = 0.5) -> float:
    """Read pages of (running, waiting) with a departure before each; what is known then."""
    for running, waiting in pages:
        seats.departed()
        seats.read(Readings(running=running, waiting=waiting, kv_usage=kv_usage))
    return seats.known


def test_a_server_has_as_many_seats_as_ever_ran_where_others_wait_beside_them() -> None:
    seats = Seats()

    # The first page only shows the number; five more must confirm it.
    assert read(seats, *[(4, 2)] * 5) == 0
    assert read(seats, (4, 1)) == 4


@pytest.mark.parametrize(
    ("pages", "kv_usage"),
    [
        pytest.param([(4, 0)] * 20, 0.5, id="nobody-waits"),
        pytest.param([(9, 3), (5, 3), (7, 1), (9, 2), (6, 2)] * 4, 0.5, id="the-number-moves"),
        pytest.param([(9, 3)] * 20, 0.95, id="the-cache-is-full"),
        pytest.param([(0, 3)] * 20, 0.5, id="nothing-runs"),
    ],
)
def test_other_reasons_to_wait_are_no_seats(pages: list[tuple[int, int]], kv_usage: float) -> None:
    assert read(Seats(), *pages, kv_usage=kv_usage) == 0


def test_pages_of_one_long_step_tell_one_thing_however_many_they_are() -> None:
    seats = Seats()

    for _ in range(100):
        seats.read(Readings(running=9, waiting=3, kv_usage=0.5))

    assert seats.known == 0


def test_one_more_than_the_seats_shows_that_there_are_more() -> None:
    seats = Seats()
    assert read(seats, *[(4, 2)] * 6) == 4

    assert read(seats, (5, 0)) == 0


def test_seats_that_stay_empty_while_requests_wait_are_forgotten() -> None:
    seats = Seats()
    assert read(seats, *[(4, 2)] * 9) == 4

    # Eight pages for four seats, eight against.
    assert read(seats, *[(2, 2)] * 7) == 4
    assert read(seats, (2, 2)) == 0


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), max_size=60))
def test_seats_are_unknown_or_the_most_that_ever_ran(pages: list[tuple[int, int]]) -> None:
    assert read(Seats(), *pages) in {0, max((each[0] for each in pages), default=0)}
