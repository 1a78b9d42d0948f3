from __future__ import annotations

from typing import Any

import pytest

from inference_analysis.argo.books import Acknowledgement
from inference_analysis.argo.endings import Ending, attended, held, plain_ending, unattended
from inference_analysis.argo.protocol import Outcome
from inference_analysis.argo.settings import AnalysisDocument, analysis_document
from inference_analysis.argo.subjects import Subject

SUBJECT = Subject(
    namespace="llm",
    rollout="chat",
    rollout_uid="r1",
    run="chat-6d5f-2-1",
    run_uid="u1",
    created_s=0.0,
    measured=0,
    background=False,
    canary_hash="6d5f",
    stable_hash="9c1b",
    fraction=1.0,
)
DOUBT = Ending(
    outcome=Outcome.INCONCLUSIVE,
    verdict="inconclusive",
    lines=("INCONCLUSIVE, pause: llm/chat canary 6d5f", "why: few", "gates", "data", "next"),
)


def settings(**over: Any) -> AnalysisDocument:
    return analysis_document({"prometheus": {"url": "http://p"}, **over})


@pytest.mark.parametrize(
    ("over", "outcome", "final", "headline"),
    [
        pytest.param({}, Outcome.INCONCLUSIVE, True, "INCONCLUSIVE, pause:", id="pause"),
        pytest.param(
            {"onInconclusive": "proceed"},
            Outcome.SUCCESSFUL,
            True,
            "INCONCLUSIVE, proceed:",
            id="proceed",
        ),
        pytest.param(
            {"onInconclusive": "abort"},
            Outcome.FAILED,
            True,
            "INCONCLUSIVE, abort:",
            id="abort",
        ),
        pytest.param(
            {"onInconclusive": "abort", "maxWait": "2h"},
            Outcome.INCONCLUSIVE,
            False,
            "INCONCLUSIVE, pause:",
            id="a-person-is-asked-first",
        ),
    ],
)
def test_an_inconclusive_verdict_becomes_what_the_settings_say(
    over: dict[str, str], outcome: Outcome, final: bool, headline: str
) -> None:
    entry = held(DOUBT, "u1", settings(**over), 100.0)
    assert (entry.outcome, entry.final) == (outcome, final)
    assert entry.lines[0].startswith(headline)
    assert len(entry.lines) == 5
    assert entry.until == (0.0 if final else 7300.0)


@pytest.mark.parametrize("outcome", [Outcome.SUCCESSFUL, Outcome.FAILED])
def test_a_verdict_that_is_no_doubt_waits_for_nobody(outcome: Outcome) -> None:
    ending = Ending(outcome=outcome, verdict="pass", lines=DOUBT.lines)
    entry = held(ending, "u1", settings(maxWait="2h", onInconclusive="abort"), 100.0)
    assert (entry.outcome, entry.final) == (outcome, True)


def test_nobody_came() -> None:
    found = settings(maxWait="2h", onInconclusive="abort")
    entry = unattended(held(DOUBT, "u1", found, 100.0), found, 7300.0)
    assert entry.outcome is Outcome.FAILED
    assert "nobody decided within 7200 s, and onInconclusive is abort" in entry.lines[1]


def test_a_person_decides_and_the_reason_stays_in_the_verdict() -> None:
    waiting = held(DOUBT, "u1", settings(maxWait="2h"), 100.0)
    said = Acknowledgement(by="ann", reason="a quiet night", at=200.0, decision="proceed")
    entry = attended(waiting, said, 210.0)
    assert (entry.outcome, entry.final) == (Outcome.SUCCESSFUL, True)
    assert "ann decided to proceed: a quiet night" in entry.lines[1]


def test_an_ending_without_a_comparison_has_five_lines_and_is_never_called_a_pass() -> None:
    ending = plain_ending(SUBJECT, Outcome.SUCCESSFUL, "first deployment\nreally", "nothing")
    assert len(ending.lines) == 5
    assert ending.lines[0] == "NOTHING TO COMPARE, proceed: llm/chat canary 6d5f"
    assert ending.lines[1] == "why: first deployment | really"
    assert ending.verdict == "inconclusive"
