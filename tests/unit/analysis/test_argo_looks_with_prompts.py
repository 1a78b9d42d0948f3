"""Looks of an AnalysisRun whose settings ask for answers, with the answers given."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from inference_analysis import checking
from inference_analysis.argo import advancing, looking
from inference_analysis.argo.advancing import Analysis
from inference_analysis.argo.books import Book, ProbeTimes
from inference_analysis.argo.protocol import Outcome
from inference_analysis.argo.settings import analysis_document
from inference_analysis.argo.subjects import Subject
from inference_analysis.errors import EndpointError
from support.analysis_simulation import Fleet, cells

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference_analysis.argo.books import Entry
    from inference_analysis.prompts.settings import QualityDocument
    from inference_analysis.schema import CellsDocument

START = 1_000_000.0
FLEET = Fleet(canary=2, stable=8, requests=200.0, drift_sd=0.0)
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


def answers(canary: float) -> list[dict[str, Any]]:
    """A hundred prompts of which the canary gets that share right."""
    return [
        {"id": f"p{i}", "canary": [float(i < 100 * canary)], "stable": [1.0]} for i in range(100)
    ]


class Store:
    """A ledger in memory."""

    def __init__(self) -> None:
        self.book = Book()

    async def read(self, _: str) -> Book:
        return self.book

    async def change(self, _: str, change: Callable[[Book], Book]) -> Book:
        self.book = change(self.book)
        return self.book


class Probes:
    """Gives what a test wants: prompts, None while they are asked, or an error."""

    def __init__(self, *given: list[dict[str, Any]] | Exception | None) -> None:
        self.given = list(given)
        self.known = ProbeTimes()
        self.answered = 0.0
        self.looks: list[str] = []

    def poll(
        self, look_id: str, _: Subject, __: QualityDocument, ___: object
    ) -> list[dict[str, Any]] | None:
        self.looks.append(look_id)
        found = self.given[0] if len(self.given) == 1 else self.given.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def times(self, _: Subject) -> ProbeTimes:
        return self.known

    def answered_s(self, _: str) -> float:
        return self.answered


class Stage:
    """An AnalysisRun with probes; ``seen`` are the cells that were judged."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, probes: Probes) -> None:
        self.store, self.probes = Store(), probes
        self.seen: list[CellsDocument] = []
        self.settings = analysis_document(
            {
                "prometheus": {"url": "http://p"},
                "quality": {"model": "m", "podPort": 8000},
                "retryFor": "1m",
            }
        )
        judged = looking.judged

        def judging(document: CellsDocument, *args: Any, **more: Any) -> Any:
            self.seen.append(document)
            return judged(document, *args, **more)

        monkeypatch.setattr(advancing, "judged", judging)
        monkeypatch.setattr(advancing, "read_cells", self.read)

    def read(
        self, *_: object, until_s: float, **__: object
    ) -> tuple[CellsDocument, tuple[str, ...]]:
        """Thirty windows of 20 s up to that moment."""
        found = FLEET.observe(np.random.default_rng(2))
        seconds = np.full(found.seconds.shape, 20.0)
        start = until_s - 20.0 * np.arange(seconds.size, 0.0, -1.0, dtype=np.float64)
        content = cells(replace(found, start_s=start, seconds=seconds))
        return checking.parse(json.dumps(content)), ()

    async def at(self, after_s: float, *, asked_again: bool = True) -> Entry | None:
        async def told(_: Entry) -> None:
            pass

        return await Analysis(
            subject=SUBJECT,
            settings=self.settings,
            rollout=ROLLOUT,
            store=self.store,  # type: ignore[arg-type]
            canary_since_s=0.0,
            told=told,
            probes=self.probes,  # type: ignore[arg-type]
            asked_again=asked_again,
        ).advance(START + after_s)

    def left_out(self) -> list[int]:
        """Windows that the last judged cells leave out."""
        return np.flatnonzero(self.seen[-1].pods[0].warm_up or [False]).tolist()


@pytest.mark.parametrize(
    ("share", "outcome", "word"),
    [
        pytest.param(1.0, Outcome.SUCCESSFUL, "quality/score proved", id="equal"),
        pytest.param(0.7, Outcome.FAILED, "why: quality/score is worse by", id="worse"),
    ],
)
async def test_answers_decide_a_look_beside_latency(
    monkeypatch: pytest.MonkeyPatch, share: float, outcome: Outcome, word: str
) -> None:
    stage = Stage(monkeypatch, Probes(answers(share)))
    entry = await stage.at(600.0)
    assert entry is not None
    assert entry.outcome is outcome
    assert word in "\n".join(entry.lines)


async def test_the_prompts_are_asked_from_the_beginning_and_the_look_waits_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch, Probes(None))
    assert await stage.at(0.0) is None
    assert stage.probes.looks == ["u1"]
    assert await stage.at(600.0) is None
    assert await stage.at(9000.0) is None
    stage.probes.given = [answers(1.0)]
    entry = await stage.at(9001.0)
    assert entry is not None
    assert entry.outcome is Outcome.SUCCESSFUL


async def test_where_nothing_asks_again_answers_that_are_late_are_inconclusive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch, Probes(None))
    entry = await stage.at(661.0, asked_again=False)
    assert entry is not None
    assert entry.outcome is Outcome.INCONCLUSIVE
    assert "the prompts are still being asked" in entry.lines[1]


async def test_an_endpoint_that_stays_away_is_inconclusive_after_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch, Probes(EndpointError("canary: was not reached")))
    assert await stage.at(30.0) is None
    assert await stage.at(600.0) is None
    entry = await stage.at(660.0)
    assert entry is not None
    assert (entry.outcome, entry.verdict) == (Outcome.INCONCLUSIVE, "inconclusive")
    assert "canary: was not reached" in entry.lines[1]


async def test_windows_of_probes_are_left_out_also_by_later_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch, Probes(answers(1.0)))
    # The windows begin at 0, 20, 40, … after the start; a look at 600 sees thirty of them.
    stage.probes.known = ProbeTimes(ended=((START + 41.0, START + 45.0),))
    assert await stage.at(600.0) is not None
    assert stage.left_out() == [2]
    assert stage.store.book.probes == [(START + 41.0, START + 45.0)]
    later = Stage(monkeypatch, Probes(answers(1.0)))
    later.store.book = Book(probes=stage.store.book.probes)
    assert await later.at(600.0) is not None
    assert later.left_out() == [2]


async def test_gross_harm_is_looked_for_without_the_windows_of_a_probe_that_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch, Probes(None))
    stage.probes.known = ProbeTimes(running=frozenset({START + 570.0}))
    assert await stage.at(590.0) is None
    # Its thirty windows end at 590; the last one begins at 570.
    assert stage.left_out() == [29]


async def test_a_probe_whose_process_is_gone_is_left_out_up_to_the_next_ones_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch, Probes(answers(1.0)))
    # A Job's pod has begun a probe at 41 s; the one after it begins at 95 s.
    stage.store.book = Book().with_probe_begun(START + 41.0)
    assert await stage.at(95.0) is None
    assert stage.store.book.probes == [(START + 41.0, START + 95.0)]
    assert await stage.at(600.0) is not None
    # The prompts may be seen half a window later (probe_times).
    assert stage.left_out() == [2, 3, 4, 5]


async def test_answers_that_come_late_leave_time_for_windows_without_prompts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch, Probes(answers(1.0)))
    # Asked all along: at 900 s, long after the look's time, there is not one window to compare.
    stage.probes.answered = START + 900.0
    stage.probes.known = ProbeTimes(ended=((START, START + 900.0),))
    assert await stage.at(900.0) is None
    assert await stage.at(959.0) is not None
