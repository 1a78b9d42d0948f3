"""Priority, saturation and the queue before the scheduler."""

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_picker.admission import Admission, flow_of, priority_of
from inference_picker.board import Board
from inference_picker.estimates import Estimates
from inference_picker.messages import Reason, Refused
from inference_picker.objectives import priorities
from inference_picker.pool import Endpoint, make_snapshot
from inference_picker.prefixes import PrefixIndex
from inference_picker.queueing import Band, FlowQueue, QueueLimits
from inference_picker.readings import Readings
from inference_picker.saturation import Thresholds, saturation

if TYPE_CHECKING:
    from collections.abc import Awaitable

ADDRESSES = ("10.0.0.1:80", "10.0.0.2:80")


def make_board() -> Board:
    board = Board(PrefixIndex(), Estimates())
    board.sync(make_snapshot([Endpoint(address=each) for each in ADDRESSES]))
    return board


@pytest.mark.parametrize(
    ("pages", "level"),
    [
        # mean of max(queue / 5, usage / 0.8) (llm-d-router's utilization detector).
        pytest.param([(0, 0.0), (0, 0.0)], 0.0, id="idle"),
        pytest.param([(5, 0.0), (0, 0.8)], 1.0, id="by-queue-and-by-cache"),
        pytest.param([(10, 0.1), (0, 0.0)], 1.0, id="mean"),
        pytest.param([(5, 0.4), None], 1.0, id="a-page-that-is-missing-is-left-out"),
        pytest.param([None, None], 0.0, id="no-page-at-all-stops-nothing"),
    ],
)
def test_saturation_is_the_mean_of_the_fuller_of_queue_and_cache(
    pages: list[tuple[int, float] | None], level: float
) -> None:
    board = make_board()
    for address, page in zip(ADDRESSES, pages, strict=True):
        if page is not None:
            board.note_readings(address, Readings(waiting=page[0], kv_usage=page[1]), at=0)

    assert saturation(board, Thresholds(), at=1) == pytest.approx(level)


def test_a_limit_of_requests_in_flight_saturates_without_any_page() -> None:
    board = make_board()
    for _ in range(4):
        board.take_off(ADDRESSES[0])

    assert saturation(board, Thresholds(in_flight=2), at=0) == 1.0


@pytest.mark.parametrize(
    ("headers", "priority"),
    [
        pytest.param({}, 0, id="none"),
        pytest.param({"x-gateway-inference-objective": "batch"}, -1, id="old-prefix"),
        pytest.param({"x-llm-d-inference-objective": "chat"}, 5, id="new-prefix"),
        pytest.param({"x-llm-d-inference-objective": "x"}, 0, id="unknown"),
    ],
)
def test_the_objective_header_gives_the_priority(headers: dict[str, str], priority: int) -> None:
    assert priority_of(headers, {"batch": -1, "chat": 5}) == priority


def test_the_fairness_header_names_the_flow() -> None:
    assert flow_of({"x-gateway-inference-fairness-id": "a"}) == "a"
    assert flow_of({}) == flow_of({"x-llm-d-inference-fairness-id": ""})


def test_objectives_of_other_pools_do_not_count() -> None:
    def objective(name: str, pool: str, **spec: Any) -> dict[str, Any]:
        return {"metadata": {"name": name}, "spec": {"poolRef": {"name": pool}, **spec}}

    found = priorities(
        "p",
        "inference.networking.k8s.io",
        [
            objective("batch", "p", priority=-3),
            objective("usual", "p"),
            objective("chat", "q", priority=9),
        ],
    )

    assert found == {"batch": -3, "usual": 0}


# --- the queue alone ----------------------------------------------------------------------


def drained(queue: FlowQueue[str]) -> list[str]:
    found = []
    while (waiting := queue.next()) is not None:
        found.append(waiting.item)
    return found


def put(queue: FlowQueue[str], item: str, flow: str = "f", priority: int = 0) -> Any:
    return queue.put(item, priority=priority, flow=flow, size=1, at=0)


def test_higher_priorities_go_first_and_flows_take_turns() -> None:
    queue: FlowQueue[str] = FlowQueue(QueueLimits())
    for number in range(3):
        put(queue, f"a{number}", flow="a")
    put(queue, "b0", flow="b")
    put(queue, "urgent", flow="a", priority=5)

    assert drained(queue) == ["urgent", "a0", "b0", "a1", "a2"]


def test_the_queue_is_bounded_in_number_and_bytes() -> None:
    queue: FlowQueue[str] = FlowQueue(QueueLimits(requests=2, bytes=10))

    assert queue.put("a", priority=0, flow="f", size=6, at=0)
    assert queue.put("b", priority=0, flow="f", size=6, at=0) is None
    assert queue.put("c", priority=0, flow="f", size=4, at=0)
    assert queue.put("d", priority=0, flow="f", size=0, at=0) is None


def test_each_priority_has_a_band_of_its_own() -> None:
    bands = {5: Band(requests=1), -1: Band(in_turn=False)}
    queue: FlowQueue[str] = FlowQueue(QueueLimits(bands=bands, usual=Band(requests=2, bytes=10)))

    taken = {name: put(queue, name, priority=5) is not None for name in ("a", "b")}
    taken |= {name: put(queue, name, priority=0) is not None for name in ("c", "d", "e")}

    assert taken == {"a": True, "b": False, "c": True, "d": True, "e": False}
    assert drained(queue) == ["a", "c", "d"]
    # What left makes room again.
    assert put(queue, "f", priority=5) is not None
    assert queue.put("g", priority=0, flow="f", size=11, at=0) is None
    assert drained(queue) == ["f"]
    for flow, item in (("a", "a0"), ("a", "a1"), ("b", "b0")):
        put(queue, item, flow=flow, priority=-1)
    assert drained(queue) == ["a0", "a1", "b0"]


def test_who_waited_too_long_comes_out_as_expired() -> None:
    queue: FlowQueue[str] = FlowQueue(QueueLimits(ttl_s=5))
    queue.put("old", priority=0, flow="a", size=1, at=0)
    queue.put("new", priority=0, flow="a", size=1, at=3)

    assert [each.item for each in queue.expired(at=5)] == ["old"]
    assert drained(queue) == ["new"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "next", "remove", "expire"]),
            st.integers(0, 3),
            st.sampled_from("abc"),
        ),
        max_size=60,
    )
)
def test_every_request_leaves_the_queue_once(steps: list[tuple[str, int, str]]) -> None:
    queue: FlowQueue[int] = FlowQueue(QueueLimits(requests=10, bytes=50, ttl_s=4))
    inside: dict[int, Any] = {}
    for number, (what, amount, flow) in enumerate(steps):
        match what:
            case "put":
                waiting = queue.put(number, priority=amount - 1, flow=flow, size=5, at=number)
                assert (waiting is None) == (len(inside) == 10)
                if waiting is not None:
                    inside[number] = waiting
            case "next":
                taken = queue.next()
                assert (taken is None) == (not inside)
                if taken is not None:
                    best = max(each.priority for each in inside.values())
                    assert inside.pop(taken.item).priority == best
            case "remove" if inside:
                chosen = list(inside)[amount % len(inside)]
                queue.remove(inside[chosen])
                queue.remove(inside.pop(chosen))
            case "expire":
                for expired in list(queue.expired(at=number)):
                    assert inside.pop(expired.item).deadline <= number
            case _:
                pass
        assert len(queue) == len(inside)


# --- the gate -----------------------------------------------------------------------------


class Gate:
    """An admission over two pods whose pages say how full they are."""

    def __init__(self, limits: QueueLimits | None = None) -> None:
        self.now = 0.0
        self.board = make_board()
        self.admission: Admission[str] = Admission(
            self.board, limits=limits, clock=lambda: self.now
        )
        self.picked: list[str] = []

    def fill(self, queue: int) -> None:
        for address in ADDRESSES:
            self.board.note_readings(address, Readings(waiting=queue), at=self.now)

    def ask(self, name: str, priority: int = 0, flow: str = "f") -> Any:
        def pick() -> str:
            self.picked.append(name)
            return name

        return self.admission.admit(pick, priority=priority, flow=flow, size=1)


def test_without_flow_control_only_sheddable_requests_are_turned_away() -> None:
    gate = Gate()
    gate.fill(10)

    assert gate.ask("chat") == "chat"
    refused = gate.ask("batch", priority=-1)
    assert isinstance(refused, Refused)
    assert (refused.status, refused.reason) == (429, Reason.SATURATED)
    assert refused.retry_after_s == 1.0

    gate.fill(0)
    assert gate.ask("batch", priority=-1) == "batch"


async def test_with_flow_control_requests_wait_until_there_is_room() -> None:
    gate = Gate(QueueLimits())
    gate.fill(10)
    waiting: list[Awaitable[Any]] = [gate.ask(name, flow=name[0]) for name in ("a1", "a2", "b1")]
    assert gate.picked == []
    assert gate.admission.queued == 3

    gate.fill(0)
    gate.admission.look()
    # One for each of the two endpoints: the pages that show them come later.
    assert gate.picked == ["a1", "b1"]
    gate.admission.look()

    assert await asyncio.gather(*waiting) == ["a1", "a2", "b1"]
    assert gate.admission.queued == 0


async def test_a_client_that_leaves_gives_up_its_place() -> None:
    gate = Gate(QueueLimits(requests=1))
    gate.fill(10)
    first = gate.ask("a")
    assert isinstance(gate.ask("b"), Refused)

    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await asyncio.sleep(0)  # the loop tells the queue
    second = gate.ask("b")
    gate.fill(0)
    gate.admission.look()

    assert await second == "b"
    assert gate.picked == ["b"]


async def test_who_waits_too_long_is_told_to_come_again() -> None:
    gate = Gate(QueueLimits(ttl_s=2))
    gate.fill(10)
    waiting = gate.ask("a")
    gate.now = 2.0
    gate.fill(10)
    gate.admission.look()

    refused = await waiting
    assert (refused.status, refused.reason) == (429, Reason.TTL_EXPIRED)


async def test_a_pick_that_fails_reaches_who_asked() -> None:
    gate = Gate(QueueLimits())
    gate.fill(10)

    def fail() -> str:
        raise ValueError("a user's scorer")

    waiting = gate.admission.admit(fail, priority=0, flow="f", size=0)
    gate.fill(0)
    gate.admission.look()

    assert not isinstance(waiting, (str, Refused))
    with pytest.raises(ValueError, match="a user's scorer"):
        await waiting
