"""One AnalysisRun from moment to moment, on simulated fleets and a ledger in memory."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from inference_analysis import checking
from inference_analysis.argo import advancing
from inference_analysis.argo.advancing import Analysis
from inference_analysis.argo.books import (
    Acknowledgement,
    Book,
    ProbeTimes,
    read_book,
    written_book,
)
from inference_analysis.argo.protocol import Outcome
from inference_analysis.argo.settings import analysis_document
from inference_analysis.argo.subjects import Subject
from inference_analysis.errors import PrometheusError
from support.analysis_simulation import Fleet, cells

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference_analysis.argo.books import Entry
    from inference_analysis.schema import CellsDocument

START = 1_000_000.0
GOOD = Fleet(canary=2, stable=8, requests=200.0, drift_sd=0.0)
SLOW = replace(GOOD, slowdown={"ttft": 3.0, "itl": 3.0, "e2e": 3.0})
FEW = Fleet(canary=1, stable=3, pod_sd=0.1)
SUBJECT = Subject(
    namespace="llm",
    rollout="chat",
    rollout_uid="r1",
    run="chat-6d5f-2-1",
    run_uid="u1",
    created_s=START,
    measured=0,
    background=False,
    canary_hash="6d5f",
    stable_hash="9c1b",
    fraction=1.0,
)
ROLLOUT = {"status": {"stableRS": "9c1b", "currentPodHash": "6d5f"}}


class MemoryStore:
    """A ledger in memory; ``between`` may write between a change's read and its write."""

    def __init__(self) -> None:
        self.data: dict[str, str] = {}
        self.between: list[Callable[[], None]] = []

    async def read(self, key: str) -> Book:
        return read_book(self.data, key)

    async def change(self, key: str, change: Callable[[Book], Book]) -> Book:
        while True:
            before = dict(self.data)
            found = read_book(before, key)
            after = change(found)
            if after is found:
                return after
            if self.between:
                self.between.pop()()
            if self.data == before:
                self.data = written_book(self.data, key, after)
                return after


class NoProbes:
    """Quality is not asked for."""

    def times(self, _: Subject) -> ProbeTimes:
        return ProbeTimes()

    def answered_s(self, _: str) -> float:
        return 0.0


class Stage:
    """An AnalysisRun, what Prometheus has, and what was told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.store = MemoryStore()
        self.told: list[Entry] = []
        self.fleet: Fleet | None = GOOD
        self.settings = analysis_document({"prometheus": {"url": "http://p"}, **settings})
        self.reads = 0
        monkeypatch.setattr(advancing, "read_cells", self.read)

    def read(
        self, *_: object, until_s: float, **__: object
    ) -> tuple[CellsDocument, tuple[str, ...]]:
        """What the fleet did in the ten minutes up to that moment."""
        self.reads += 1
        if self.fleet is None:
            raise PrometheusError("it is down")
        seen = self.fleet.observe(np.random.default_rng(2))
        # Windows of 20 s: thirty of them fit between the start of a run and its look.
        seconds = np.full(seen.seconds.shape, 20.0)
        start = until_s - 20.0 * np.arange(seconds.size, 0.0, -1.0, dtype=np.float64)
        content = cells(
            replace(seen, start_s=start, seconds=seconds), policy=self.settings.policy_values()
        )
        return checking.parse(json.dumps(content)), ()

    def analysis(self, subject: Subject = SUBJECT) -> Analysis:
        async def told(entry: Entry) -> None:
            self.told.append(entry)

        return Analysis(
            subject=subject,
            settings=self.settings,
            rollout=ROLLOUT,
            store=self.store,  # type: ignore[arg-type]
            canary_since_s=0.0,
            told=told,
            probes=NoProbes(),  # type: ignore[arg-type]
        )

    async def at(
        self, after_s: float, subject: Subject = SUBJECT, *, asked_again: bool = True
    ) -> Entry | None:
        analysis = replace(self.analysis(subject), asked_again=asked_again)
        return await analysis.advance(START + after_s)

    @property
    def book(self) -> Book:
        return read_book(self.store.data, "6d5f.json")

    @property
    def looks(self) -> list[str]:
        ledger = self.book.ledger
        return [look.id for s in ledger.segments for look in s.looks] if ledger else []


async def test_a_look_is_taken_once_and_replayed_ever_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch)
    assert await stage.at(599.0) is None
    assert stage.looks == []
    entry = await stage.at(600.0)
    assert entry is not None
    assert entry.outcome is Outcome.SUCCESSFUL
    reads = stage.reads
    stage.fleet = SLOW
    assert await stage.at(700.0) == entry
    assert (stage.reads, stage.looks, len(stage.told)) == (reads, ["u1"], 1)
    # The comparison itself is kept beside the verdict.
    assert stage.book.report is not None
    assert stage.book.report["lines"] == entry.lines
    assert len(stage.store.data["6d5f.json"]) < 20_000


async def test_gross_harm_ends_it_before_its_look(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    stage.fleet = SLOW
    entry = await stage.at(30.0)
    assert entry is not None
    assert (entry.outcome, entry.verdict) == (Outcome.FAILED, "fail")
    assert len(entry.lines) == 5


async def test_a_prometheus_that_stays_away_is_inconclusive_only_after_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch, retryFor="2m")
    stage.fleet = None
    assert await stage.at(30.0) is None
    assert await stage.at(700.0) is None
    entry = await stage.at(720.0)
    assert entry is not None
    assert entry.outcome is Outcome.INCONCLUSIVE
    assert "it is down" in entry.lines[1]
    assert stage.looks == []


@pytest.mark.parametrize(
    ("said", "fleet", "later", "outcome"),
    [
        pytest.param("proceed", FEW, 700.0, Outcome.SUCCESSFUL, id="a-person-proceeds"),
        pytest.param("abort", FEW, 700.0, Outcome.FAILED, id="a-person-aborts"),
        pytest.param("", FEW, 600.0 + 3600.0, Outcome.FAILED, id="nobody-comes"),
        pytest.param("", SLOW, 700.0, Outcome.FAILED, id="gross-harm-meanwhile"),
    ],
)
async def test_an_inconclusive_verdict_waits_for_a_person(
    monkeypatch: pytest.MonkeyPatch, said: str, fleet: Fleet, later: float, outcome: Outcome
) -> None:
    stage = Stage(monkeypatch, policy={"mode": "prove"}, maxWait="1h", onInconclusive="abort")
    stage.fleet = FEW
    assert await stage.at(600.0) is None
    assert [entry.final for entry in stage.told] == [False]
    assert await stage.at(650.0) is None
    if said:
        word = Acknowledgement(by="ann", reason="seen", at=START + 660.0, decision=said)  # type: ignore[arg-type]
        await stage.store.change("6d5f.json", lambda book: book.with_acknowledgement(word))
    stage.fleet = fleet
    entry = await stage.at(later)
    assert entry is not None
    assert (entry.outcome, entry.final) == (outcome, True)
    assert [entry.final for entry in stage.told] == [False, True]


async def test_a_verdict_that_nothing_asks_about_again_waits_no_longer_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch, policy={"mode": "prove"}, maxWait="1h", onInconclusive="abort")
    stage.fleet = FEW
    assert await stage.at(600.0) is None
    entry = await stage.at(700.0, asked_again=False)
    assert entry is not None
    assert (entry.outcome, entry.final) == (Outcome.FAILED, True)
    assert "onInconclusive is abort" in entry.lines[1]
    assert "its AnalysisTemplate allows no longer wait" in entry.lines[1]


async def test_a_look_that_others_wrote_before_is_judged_with_what_they_spent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch)
    other = Stage(monkeypatch)
    assert await other.at(600.0, replace(SUBJECT, run_uid="u0")) is not None

    def write() -> None:
        stage.store.data = dict(other.store.data)

    stage.store.between.append(write)
    assert await stage.at(600.0) is not None
    assert stage.looks == ["u0", "u1"]
    # The plan's end was taken by the other one: this look draws on the reserve.
    assert stage.book.ledger is not None
    assert stage.book.ledger.segments[0].looks[1].slot == 1


async def test_a_background_run_takes_its_planned_looks_and_ends_only_on_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch, background={"looks": 2, "over": "20m"})
    background = replace(SUBJECT, background=True)
    for after in (300.0, 600.0, 900.0, 1200.0, 3000.0):
        assert await stage.at(after, background) is None
    assert stage.looks == ["u1/1", "u1/2"]
    stage.fleet = SLOW
    entry = await stage.at(3030.0, background)
    assert entry is not None
    assert entry.outcome is Outcome.FAILED
    stage.fleet = GOOD
    assert await stage.at(3060.0, background) == entry


async def test_a_third_try_is_inconclusive_until_somebody_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch)
    stage.fleet = SLOW
    failed = [replace(SUBJECT, run_uid=f"u{n}", created_s=START + n * 1000.0) for n in (0, 1)]
    for number, subject in enumerate(failed):
        assert await stage.at(number * 1000.0 + 600.0, subject) is not None
    stage.fleet = GOOD
    third = replace(SUBJECT, run_uid="u2", created_s=START + 2000.0)
    entry = await stage.at(2600.0, third)
    assert entry is not None
    assert entry.outcome is Outcome.INCONCLUSIVE
    assert "somebody must acknowledge" in entry.lines[1]
    word = Acknowledgement(by="ann", reason="a bad node", at=START + 2700.0, epoch=3)
    await stage.store.change("6d5f.json", lambda book: book.with_acknowledgement(word))
    entry = await stage.at(3600.0, replace(SUBJECT, run_uid="u3", created_s=START + 3000.0))
    assert entry is not None
    assert entry.outcome is Outcome.SUCCESSFUL
    assert "ann has acknowledged a further try: a bad node" in entry.lines[1]


async def test_shadow_looks_leave_the_live_ledger_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, ledger="shadow")
    stage.fleet = SLOW
    entry = await stage.at(600.0)
    assert entry is not None
    assert entry.outcome is Outcome.FAILED
    assert set(stage.store.data) == {"6d5f.shadow.json"}
