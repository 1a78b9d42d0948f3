from __future__ import annotations

import json
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from inference_analysis.argo import serving
from inference_analysis.argo.books import Entry
from inference_analysis.argo.protocol import Outcome, WebMeasurement
from inference_analysis.argo.runs import running_run
from inference_analysis.argo.settings import AnalysisDocument, analysis_document
from inference_analysis.errors import InputError

QUESTION: dict[str, Any] = {
    "namespace": "llm",
    "rollout": "chat",
    "canaryHash": "6d5f",
    "stableHash": "9c1b",
    "metric": "analysis",
}


def test_a_question_of_the_template_is_understood() -> None:
    found = serving._question(json.dumps(QUESTION | {"config": {"look": {"after": "5m"}}}))
    assert (found.canary_hash, found.config) == ("6d5f", {"look": {"after": "5m"}})


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        pytest.param("{", "body", id="no-json"),
        pytest.param("{}", "namespace: Field required", id="nothing"),
        pytest.param(json.dumps(QUESTION | {"hash": "x"}), "hash: Extra inputs", id="too-much"),
        pytest.param(
            json.dumps(QUESTION | {"config": {"prometheus": {"url": "http://evil"}}}),
            "would send the server's credentials",
            id="another-prometheus",
        ),
    ],
)
def test_what_is_no_question_is_refused_with_the_remedy(body: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        serving._question(body)


def run(name: str, phase: str = "Running", rollout: str = "chat", at: str = "1") -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "creationTimestamp": f"2026-01-31T12:00:0{at}Z",
            "ownerReferences": [{"kind": "Rollout", "name": rollout}],
        },
        "spec": {"metrics": [{"name": "analysis"}]},
        "status": {"phase": phase},
    }


class Listed:
    """An API server that knows some AnalysisRuns."""

    def __init__(self, *runs: dict[str, Any]) -> None:
        self.runs = runs

    async def list(self, *_: object) -> dict[str, Any]:
        return {"items": list(self.runs)}


async def test_the_run_that_asks_is_the_newest_of_the_rollout_that_has_not_ended() -> None:
    listed = Listed(
        run("old"),
        run("new", at="3"),
        run("ended", "Successful", at="4"),
        run("other", rollout="chat-b", at="5"),
    )
    found = await running_run(listed, "llm", "chat", "6d5f", "analysis")  # type: ignore[arg-type]
    assert found["metadata"]["name"] == "new"


async def test_a_question_that_no_run_asks_is_refused() -> None:
    with pytest.raises(InputError, match="Check the arguments"):
        await running_run(Listed(), "llm", "chat", "6d5f", "analysis")  # type: ignore[arg-type]


@dataclass(frozen=True)
class Asked:
    """An analysis that says ``given``."""

    given: Entry | None
    settings: AnalysisDocument
    subject: SimpleNamespace
    asked_again: bool = True

    async def advance(self, _: float) -> Entry | None:
        return self.given


EARLY = WebMeasurement(last=False, repeatable=True)
LAST = WebMeasurement(last=True, repeatable=True)
GIVEN_UP = WebMeasurement(last=True, repeatable=False)


def entry(outcome: Outcome) -> Entry:
    return Entry(run="u1", at=1.0, outcome=outcome, verdict="pass", lines=["PASS, proceed"])


@pytest.mark.parametrize(
    ("given", "place", "status", "action", "age_s", "background"),
    [
        pytest.param(None, EARLY, 200, "wait", 1, False, id="early"),
        pytest.param(None, LAST, 503, "wait", 1, False, id="last"),
        # Argo's own count may be ahead of the one that is read.
        pytest.param(None, EARLY, 503, "wait", 9000, False, id="from-the-look-on"),
        pytest.param(None, EARLY, 200, "wait", 9000, True, id="in-the-background"),
        # A template that ends before its look must not promote: nothing was looked at.
        pytest.param(None, GIVEN_UP, 200, "pause", 1, False, id="none"),
        pytest.param(entry(Outcome.SUCCESSFUL), LAST, 200, "proceed", 9000, False, id="judged"),
        pytest.param(entry(Outcome.FAILED), EARLY, 200, "abort", 1, False, id="gross-harm"),
    ],
)
async def test_only_the_last_measurement_waits_by_an_error(
    monkeypatch: pytest.MonkeyPatch,
    given: Entry | None,
    place: WebMeasurement,
    status: int,
    action: str,
    age_s: float,
    background: bool,
) -> None:
    async def the_run(*_: object) -> dict[str, Any]:
        return {}

    async def the_analysis(*_: object, **__: object) -> Asked:
        subject = SimpleNamespace(created_s=time.time() - age_s, background=background)
        return Asked(given, analysis_document({"prometheus": {"url": "http://p"}}), subject)

    monkeypatch.setattr(serving, "running_run", the_run)
    monkeypatch.setattr(serving, "analysis_of", the_analysis)
    monkeypatch.setattr(serving, "web_measurement", lambda *_: place)
    application = serving.application(Listed(), {})  # type: ignore[arg-type]
    async with TestClient(TestServer(application)) as client:
        answer = await client.post(serving.PATH, json=QUESTION)
        assert (answer.status, (await answer.json())["action"]) == (status, action)
