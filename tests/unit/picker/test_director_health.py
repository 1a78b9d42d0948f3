"""What a director learns from ends, and whom it lets wait."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from inference_common.shares import PoolShares
from inference_picker.config import PickerConfig
from inference_picker.director import Director, Settings
from inference_picker.holding import Held, State
from inference_picker.messages import (
    Ended,
    Finish,
    Phase,
    Pick,
    PickEndpoint,
    Reason,
    Refused,
    TokenTimes,
    Usage,
)
from inference_picker.metrics import Metrics
from inference_picker.pool import Endpoint, StaticSource, make_snapshot
from inference_picker.queueing import QueueLimits
from inference_picker.readings import Readings
from inference_picker.scheduling_series import SchedulingCollector

POOL = [Endpoint(address=f"10.0.0.{n}:80", pod=f"pod-{n}", version="v") for n in range(4)]


class Rig:
    """A director whose clock is set by hand."""

    def __init__(self, endpoints: list[Endpoint] | None = None, **config: Any) -> None:
        self.now = 0.0
        pool = make_snapshot(
            POOL if endpoints is None else endpoints, objectives={"batch": -1, "chat": 1}
        )
        self.source = StaticSource(pool)
        self.director = Director(
            source=self.source,
            metrics=Metrics(),
            settings=Settings(config=PickerConfig(**config)),
            clock=lambda: self.now,
        )

    def ask(self, objective: str = "", **fields: Any) -> Any:
        headers = {"x-llm-d-inference-objective": objective} if objective else {}
        return self.director.pick(PickEndpoint(model="m", headers=headers, **fields))

    def picked(self, **fields: Any) -> Pick:
        pick, flight = self.ask(**fields)
        flight.land()
        assert isinstance(pick, Pick)
        return pick

    def end(self, address: str, ended: Ended = Ended.COMPLETE, **fields: Any) -> None:
        pick = Pick(endpoints=(address,), model="m", target="m")
        self.director.finish(
            Finish(**{"pick": pick, "ended": ended, "duration_s": 1.0, "status": 200, **fields})
        )

    def places(self, count: int = 40) -> set[str]:
        return {self.picked().endpoints[0] for _ in range(count)}

    def value(self, name: str) -> float:
        collector = SchedulingCollector(self.director, self.source)
        return sum(
            sample.value
            for family in collector.collect()
            for sample in family.samples
            if sample.name == f"inference_picker_{name}"
        )


BAD = POOL[1].address


@pytest.mark.parametrize(
    ("failing", "reason"),
    [pytest.param(2, "ejected", id="all-ejected"), pytest.param(1, None, id="one-of-two-left")],
)
def test_what_an_ejected_version_can_not_take_is_told_apart(
    failing: int, reason: str | None
) -> None:
    pool = [Endpoint(address=f"10.0.0.{n}:80", version="new" if n < 2 else "old") for n in range(6)]
    rig = Rig(pool)
    shares = PoolShares(
        rollout="llm/chat", uid="u", counter=1, stable="old", weights={"old": 50, "new": 50}
    )
    rig.source.current = replace(rig.source.current, held=Held(shares=shares, state=State.APPLIED))
    rig.places()
    for each in pool[:failing]:
        for _ in range(3):
            rig.end(each.address, status=500)

    rig.places(40)

    expected = {("new", reason): 20} if reason else {}
    assert rig.director.unmet == expected


@pytest.mark.parametrize(
    ("ended", "fields", "leaves"),
    [
        pytest.param(Ended.COMPLETE, {"status": 503}, True, id="5xx"),
        pytest.param(Ended.RESET, {}, True, id="reset"),
        pytest.param(
            Ended.COMPLETE, {"tokens": TokenTimes(malformed=True)}, True, id="200-with-garbage"
        ),
        pytest.param(
            Ended.NO_RESPONSE, {"status": None, "duration_s": 30.0}, True, id="hung-for-long"
        ),
        pytest.param(
            Ended.NO_RESPONSE, {"status": None, "duration_s": 0.5}, False, id="client-left-soon"
        ),
        pytest.param(Ended.COMPLETE, {"status": 404}, False, id="4xx"),
        pytest.param(Ended.COMPLETE, {}, False, id="good"),
        pytest.param(Ended.UNFOLLOWED, {"status": None}, False, id="not-followed"),
    ],
)
def test_an_endpoint_is_ejected_for_its_own_failures_only(
    ended: Ended, fields: dict[str, Any], leaves: bool
) -> None:
    rig = Rig()
    rig.places()

    for _ in range(3):
        rig.end(BAD, ended, **fields)

    assert (BAD not in rig.places()) == leaves
    assert rig.value("ejected_endpoints") == leaves


def test_the_endpoint_that_served_is_blamed_not_the_one_that_was_picked() -> None:
    rig = Rig()
    rig.places()
    for _ in range(3):
        rig.end(POOL[0].address, status=500, served=BAD)

    assert rig.places() == {each.address for each in POOL} - {BAD}


def test_an_ejected_endpoint_comes_back_in_its_warm_up() -> None:
    rig = Rig()
    rig.places()
    for _ in range(3):
        rig.end(BAD, status=500)
    rig.now = 12.0

    found = rig.picked(subset=(BAD,))
    assert found.phase is Phase.WARMUP
    rig.now = 30.0
    assert rig.picked(subset=(BAD,)).phase is Phase.WARM


def test_a_pod_that_is_new_to_the_pool_is_in_its_warm_up() -> None:
    rig = Rig(POOL[:3])
    assert rig.picked().phase is Phase.WARM

    rig.source.current = make_snapshot(POOL)
    assert rig.picked(subset=(POOL[3].address,)).phase is Phase.WARMUP


def test_terminating_pods_get_requests_only_when_no_other_is_left() -> None:
    leaving = Endpoint(address="10.0.0.9:80", terminating=True)
    rig = Rig([POOL[0], leaving])
    assert rig.places() == {POOL[0].address}

    rig.source.current = make_snapshot([leaving])
    assert rig.places() == {leaving.address}


def test_a_picks_reasons_are_told_on_request() -> None:
    rig = Rig()

    assert rig.picked().decision is None
    decision = rig.picked(explain=True).decision
    assert decision is not None
    assert len(decision.considered) == 4


def test_repeated_prompts_go_where_their_prefix_is() -> None:
    rig = Rig()
    content = {"prompt": "a long system prompt " * 200}
    first, flight = rig.ask(content=content)
    flight.first_byte(0.1)

    # (26 tokens behind the last full block + 64) x 2 against (1050 + 64) x 1.
    assert rig.picked(content=content).endpoints == first.endpoints
    flight.land()


def test_the_servers_counts_teach_the_length_of_tokens_and_answers() -> None:
    rig = Rig()
    pick, flight = rig.ask(content={"prompt": "x" * 3000})
    flight.land()
    before = rig.director.scheduler.estimates.output_tokens

    for _ in range(200):
        tokens = TokenTimes(usage=Usage(prompt=1000, output=50))
        rig.director.finish(
            Finish(pick=pick, ended=Ended.COMPLETE, duration_s=1, status=200, tokens=tokens)
        )

    estimates = rig.director.scheduler.estimates
    assert estimates.bytes_per_token == pytest.approx(3.0, rel=0.01)
    assert estimates.output_tokens == pytest.approx(50, rel=0.01)
    assert before > 100


def fill(rig: Rig, queue: int) -> None:
    for each in POOL:
        rig.director.note_readings(each.address, Readings(waiting=queue))


def test_sheddable_requests_are_turned_away_from_a_full_pool() -> None:
    rig = Rig()
    rig.places()
    fill(rig, 10)

    assert isinstance(rig.ask("chat"), tuple)
    refused = rig.ask("batch")
    assert isinstance(refused, Refused)
    assert (refused.status, refused.reason) == (429, Reason.SATURATED)
    assert rig.value("saturation") == 2.0
    assert sum(rig.director.flights.counts.values()) == 1


async def test_with_flow_control_a_page_with_room_lets_the_next_go() -> None:
    rig = Rig(queue=QueueLimits())
    rig.places()
    fill(rig, 10)
    waiting = rig.ask()
    assert rig.value("queued_requests") == 1

    fill(rig, 0)

    pick, flight = await waiting
    assert pick.endpoints[0] in {each.address for each in POOL}
    flight.land()
    assert rig.value("queued_requests") == 0


def test_a_file_or_cluster_that_is_away_shows_in_the_series(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig()
    assert rig.value("source_staleness_seconds") == 0

    monkeypatch.setattr(rig.source, "staleness_s", lambda: 42.0)
    assert rig.value("source_staleness_seconds") == 42.0
