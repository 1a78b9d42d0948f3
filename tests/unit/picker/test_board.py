"""The books of a pool: what is in flight, what is pending, and what metrics pages correct."""

from dataclasses import dataclass

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inference_picker.board import STALE_S, Board, Flight
from inference_picker.estimates import Estimates
from inference_picker.pool import Endpoint, make_snapshot
from inference_picker.prefixes import PrefixIndex
from inference_picker.readings import Readings

A, B, C = (Endpoint(address=f"10.0.0.{n}:80") for n in range(3))


def make_board(*endpoints: Endpoint, rate: float = 1000.0) -> Board:
    estimates = Estimates()
    estimates.prefill_rate = rate
    board = Board(PrefixIndex(), estimates)
    board.sync(make_snapshot(endpoints or (A, B)))
    return board


def in_flight(board: Board, at: float = 0.0) -> list[float]:
    return list(board.pods((), at=at).in_flight)


def pending(board: Board, at: float = 0.0) -> list[float]:
    return list(board.pods((), at=at).pending_tokens)


def test_a_request_counts_from_its_pick_to_its_end() -> None:
    board = make_board()

    flight = board.take_off(A.address, uncached_tokens=100, held_tokens=150)
    assert in_flight(board) == [1, 0]
    assert board.counts == {A.address: 1}

    flight.land()
    flight.land()
    assert in_flight(board) == [0, 0]
    assert board.counts == {}
    assert list(board.pods((), at=0).held_tokens) == [0, 0]


@pytest.mark.parametrize(
    ("running", "waiting", "own_when_read", "own_now", "expected"),
    [
        pytest.param(5, 2, 3, 3, 7, id="others-sent-four"),
        pytest.param(1, 0, 3, 3, 3, id="ours-have-not-arrived-yet"),
        pytest.param(5, 2, 3, 5, 9, id="two-more-of-ours-since"),
    ],
)
def test_a_page_adds_what_other_pickers_sent(
    running: int, waiting: int, own_when_read: int, own_now: int, expected: int
) -> None:
    # own + max(0, the page's - own when it was read).
    board = make_board()
    for _ in range(own_when_read):
        board.take_off(A.address)
    board.note_readings(A.address, Readings(running=running, waiting=waiting), at=0)
    for _ in range(own_now - own_when_read):
        board.take_off(A.address)

    assert in_flight(board, at=1.0)[0] == expected


def test_an_old_page_says_nothing() -> None:
    board = make_board()
    board.note_readings(A.address, Readings(running=5, waiting=3, kv_usage=0.9), at=0)

    pods = board.pods((), at=STALE_S + 0.1)

    assert [pods.in_flight[0], pods.waiting[0], pods.kv_usage[0]] == [0, 0, 0]


def test_a_page_that_is_gone_is_forgotten_at_once() -> None:
    board = make_board()
    board.note_readings(A.address, Readings(running=5), at=0)
    board.note_readings(A.address, None, at=0.1)

    assert in_flight(board, at=0.2) == [0, 0]


def test_a_prompt_is_pending_until_its_first_token() -> None:
    board = make_board(rate=1.0)  # so slow that time alone changes nothing here

    first = board.take_off(A.address, uncached_tokens=300)
    board.take_off(A.address, uncached_tokens=500)
    assert pending(board) == [800, 0]

    first.first_byte(0.0)
    assert pending(board) == [500, 0]


def test_a_first_token_tells_that_the_prompts_before_it_are_computed() -> None:
    # Servers compute prompts in the order in which they come; of most, no first token is seen.
    board = make_board(rate=1.0)
    board.take_off(A.address, uncached_tokens=300)
    second = board.take_off(A.address, uncached_tokens=500)
    board.take_off(A.address, uncached_tokens=700)

    second.first_byte(0.0)

    assert pending(board) == [700, 0]


def test_prompts_whose_first_token_is_not_seen_are_through_after_their_time() -> None:
    board = make_board(rate=1000.0)

    board.take_off(A.address, at=0.0, uncached_tokens=500)
    board.take_off(A.address, at=0.1, uncached_tokens=400)

    # 900 tokens from 0.0 on at 1000 a second.
    assert pending(board, at=0.1)[0] == pytest.approx(800)
    assert pending(board, at=2.0)[0] == 0


def test_rows_of_endpoints_that_left_are_used_again_when_their_requests_are_over() -> None:
    board = make_board(A, B)
    flight = board.take_off(A.address, uncached_tokens=10, held_tokens=10, blocks=(1, 2))

    board.sync(make_snapshot([B]))
    assert board.counts == {A.address: 1}
    board.sync(make_snapshot([B, C]))
    flight.land()

    board.sync(make_snapshot([A, B, C]))
    pods = board.pods((1, 2), at=0)
    assert list(pods.in_flight) == [0, 0, 0]
    assert list(pods.cached_blocks) == [0, 0, 0]


def test_the_pool_may_grow_to_any_size() -> None:
    many = [Endpoint(address=f"10.{n // 250 + 1}.0.{n % 250}:80") for n in range(1000)]
    board = make_board(A)
    flight = board.take_off(A.address)

    board.sync(make_snapshot([A, *many]))

    assert in_flight(board) == [1] + [0] * 1000
    flight.land()
    assert in_flight(board) == [0] * 1001


def test_a_cache_holds_more_blocks_once_a_token_is_known_to_have_more_bytes() -> None:
    # 256 tokens are 4 blocks of 256 bytes at 4 bytes a token, and 8 at 8.
    index, estimates = PrefixIndex(), Estimates()
    board = Board(index, estimates)
    board.sync(make_snapshot([A]))
    page = Readings(kv_blocks=16, block_size=16)

    board.note_readings(A.address, page, at=0)
    board.take_off(A.address, blocks=tuple(range(20)))
    assert len(index) == 4

    estimates.bytes_per_token = 8.0
    board.note_readings(A.address, page, at=1)
    board.take_off(A.address, blocks=tuple(range(20)))
    assert len(index) == 8


def test_a_cached_prefix_is_seen_on_the_pod_that_has_it() -> None:
    board = make_board()
    board.take_off(B.address, blocks=(1, 2, 3))

    pods = board.pods((1, 2, 9), at=0)

    assert list(pods.cached_blocks) == [0, 2]
    # 256 bytes a block, 4 bytes a token until the model's own figures are known.
    assert list(pods.cached_tokens) == [0, 128]


@dataclass
class Sent:
    flight: Flight
    address: str
    over: bool = False


class Books(RuleBasedStateMachine):
    """Whatever happens in whatever order: nothing goes below zero, and nothing is left."""

    @initialize()
    def begin(self) -> None:
        self.board = make_board(A, B)
        self.sent: list[Sent] = []
        self.at = 0.0

    @rule(
        endpoint=st.sampled_from([A, B, C]),
        tokens=st.floats(0, 1e5),
        blocks=st.lists(st.integers(0, 20), max_size=5),
    )
    def send(self, endpoint: Endpoint, tokens: float, blocks: list[int]) -> None:
        flight = self.board.take_off(
            endpoint.address,
            at=self.at,
            uncached_tokens=tokens,
            held_tokens=tokens + 7,
            blocks=blocks,
        )
        self.sent.append(Sent(flight=flight, address=endpoint.address))

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), begin=st.booleans(), end=st.booleans())
    def go_on(self, data: st.DataObject, begin: bool, end: bool) -> None:
        one = data.draw(st.sampled_from(self.sent))
        if begin:
            one.flight.first_byte(self.at)
        if end:
            one.flight.land()
            one.over = True

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds: float) -> None:
        self.at += seconds

    @rule(endpoint=st.sampled_from([A, B, C]), running=st.integers(0, 9))
    def read(self, endpoint: Endpoint, running: int) -> None:
        readings = Readings(running=running, waiting=1, kv_usage=0.5)
        self.board.note_readings(endpoint.address, readings, at=self.at)

    @rule(members=st.sets(st.sampled_from([A, B, C])))
    def change(self, members: set[Endpoint]) -> None:
        self.board.sync(make_snapshot(sorted(members, key=lambda each: each.address)))

    @invariant()
    def counts_are_exact(self) -> None:
        expected: dict[str, int] = {}
        for each in self.sent:
            if not each.over:
                expected[each.address] = expected.get(each.address, 0) + 1
        assert dict(self.board.counts) == expected

    @invariant()
    def nothing_is_negative(self) -> None:
        pods = self.board.pods((1, 2), at=self.at)
        for column in (pods.in_flight, pods.pending_tokens, pods.held_tokens, pods.cached_tokens):
            assert (column >= 0).all()

    def teardown(self) -> None:
        if not hasattr(self, "sent"):
            return
        for each in self.sent:
            each.flight.land()
        self.board.sync(make_snapshot([A, B, C]))
        pods = self.board.pods((), at=self.at + STALE_S + 1)
        for column in (pods.in_flight, pods.pending_tokens, pods.held_tokens):
            assert not column.any()


TestBooks = Books.TestCase
