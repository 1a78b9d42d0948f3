"""What a Job says when it cannot judge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from inference_analysis.argo import working
from inference_analysis.argo.working import job_result
from inference_analysis.errors import InputError, LedgerError
from inference_common.errors import KubeError

if TYPE_CHECKING:
    from inference_analysis.argo.books import Entry

RUN: dict[str, Any] = {
    "metadata": {
        "name": "chat-6d5f-2-1",
        "namespace": "llm",
        "uid": "u1",
        "creationTimestamp": "2026-01-31T12:00:00Z",
        "labels": {},
        "ownerReferences": [{"kind": "Rollout", "name": "chat", "uid": "r1", "controller": True}],
    },
    "status": {"metricResults": [{"name": "analysis", "count": 1}]},
}
ROLLOUT: dict[str, Any] = {"spec": {}, "status": {}}


async def result(
    monkeypatch: pytest.MonkeyPatch, error: Exception, measured: int
) -> tuple[tuple[str, ...], int, list[Entry]]:
    """Lines, exit code and Events of a Job that runs into the error."""
    told: list[Entry] = []
    run = {**RUN, "status": {"metricResults": [{"name": "analysis", "count": measured}]}}

    async def run_of_job(*_: object) -> tuple[dict[str, Any], str]:
        return run, "analysis"

    async def rollout_behind(*_: object) -> dict[str, Any]:
        return ROLLOUT

    async def analysis_of(*_: object, **__: object) -> None:
        raise error

    async def announce(_: object, __: object, entry: Entry) -> None:
        told.append(entry)

    for function in (run_of_job, rollout_behind, analysis_of, announce):
        monkeypatch.setattr(working, function.__name__, function)
    lines, code = await job_result(
        None,  # type: ignore[arg-type]
        "llm",
        "job",
        canary_hash="6d5f",
        stable_hash="9c1b",
        config="",
    )
    return lines, code, told


@pytest.mark.parametrize(
    ("error", "said"),
    [
        pytest.param(InputError("look.after: no duration"), "look.after", id="settings"),
        pytest.param(KubeError(403, "Forbidden", "pods"), "403 Forbidden: pods", id="rights"),
        pytest.param(LedgerError("changed by others"), "changed by others", id="ledger"),
        pytest.param(TypeError("oh"), "has failed (TypeError: oh)", id="a-fault-of-ours"),
    ],
)
async def test_what_is_no_verdict_on_the_canary_never_aborts_it(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    # Argo makes Inconclusive of success, failure, success.
    for measured, expected in ((0, 0), (1, 1), (2, 0)):
        lines, code, told = await result(monkeypatch, error, measured)
        assert code == expected
        assert len(lines) == 5
        assert said in lines[1]
        assert len(told) == (1 if measured == 0 else 0)


async def test_an_api_server_that_stays_away_is_left_to_argos_own_limits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(working, "_PATIENCE_S", 0.0)
    with pytest.raises(KubeError):
        await result(monkeypatch, KubeError(503, "ServiceUnavailable", "later"), 0)
