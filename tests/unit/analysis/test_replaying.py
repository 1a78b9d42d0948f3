from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from typer.testing import CliRunner

from inference_analysis.command import app
from inference_analysis.errors import InputError
from inference_analysis.evaluation import evaluate
from inference_analysis.ledgers import Ledger, LookRequest
from inference_analysis.policies import Policy
from inference_analysis.replaying import replayed
from inference_analysis.verdicts import Verdict
from support.analysis_simulation import Fleet, cells

if TYPE_CHECKING:
    from pathlib import Path

FLEET = Fleet(requests=200.0, drift_sd=0.0)
SLOWER = replace(FLEET, slowdown={"ttft": 1.12})


def observed(fleet: Fleet) -> Any:
    return fleet.observe(np.random.default_rng(8))


def test_a_replay_decides_at_each_look_what_was_decided_live() -> None:
    """The live looks are taken one by one, each with the ledger of the one before."""
    data, policy, ledger, live = observed(SLOWER), Policy(), Ledger(), []
    for number in range(1, 6):
        seen = data.windows(np.arange(30) < 6 * number)
        look = LookRequest(id=f"replay-{number}", fraction=number / 5)
        live.append(evaluate(seen, policy, look, ledger, fingerprint="x"))
        ledger = live[-1].ledger
    found = replayed(data, policy, looks=5, fingerprint="x", after_fail=True)
    assert [e.decision for e in found] == [e.decision for e in live]
    assert found[-1].ledger == ledger


def test_a_replay_ends_where_the_rollout_would_have_ended() -> None:
    found = replayed(
        observed(replace(FLEET, slowdown={"ttft": 3.0})), Policy(), looks=5, fingerprint="x"
    )
    assert [e.decision.verdict for e in found] == [Verdict.FAIL]


def test_looks_before_the_first_canary_request_are_left_out() -> None:
    data = observed(FLEET)
    usable = data.usable.copy()
    usable[data.canary, :12] = False
    found = replayed(replace(data, usable=usable), Policy(), looks=5, fingerprint="x")
    assert [e.stand.look.id for e in found] == ["replay-3", "replay-4", "replay-5"]


@pytest.mark.parametrize(
    ("change", "looks", "message"),
    [
        pytest.param(False, 31, "30 for 31 looks. Ask for fewer --looks", id="too-many-looks"),
        pytest.param(True, 5, "no usable request of the canary", id="no-data-at-all"),
    ],
)
def test_what_cannot_be_replayed_is_refused(change: bool, looks: int, message: str) -> None:
    data = observed(FLEET)
    if change:
        data = replace(data, usable=data.usable & ~data.canary[:, None])
    with pytest.raises(InputError, match=message):
        replayed(data, Policy(), looks=looks, fingerprint="x")


@pytest.mark.parametrize(
    ("fleet", "code", "word"),
    [
        pytest.param(FLEET, 0, "PASS, proceed", id="pass"),
        pytest.param(replace(FLEET, slowdown={"ttft": 2.0}), 1, "FAIL, abort", id="fail"),
    ],
)
def test_the_command_shows_every_look_and_ends_with_the_last_verdict(
    tmp_path: Path, fleet: Fleet, code: int, word: str
) -> None:
    file = tmp_path / "cells.json"
    file.write_text(json.dumps(cells(observed(fleet))))
    page = tmp_path / "out.html"
    result = CliRunner().invoke(app, ["replay", str(file), "--report", str(page)])
    assert result.exit_code == code
    assert word in result.stdout
    assert "20%" in result.stdout
    assert page.read_text().startswith("<!DOCTYPE html>")
    both = [CliRunner().invoke(app, ["replay", str(file), "--json"]).stdout for _ in range(2)]
    assert both[0] == both[1]
    found = json.loads(both[0])
    assert found["schema"] == "inference-rollouts.io/analysis-replay/v1"
    assert found["looks"][0]["look"]["fraction"] == 0.2
