from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from typer.testing import CliRunner

from inference_analysis.command import app
from support.analysis_simulation import Fleet, cells

if TYPE_CHECKING:
    from pathlib import Path

FLEET = Fleet(requests=200.0, drift_sd=0.0)
NOISY = Fleet(canary=1, stable=3, pod_sd=0.1)
CASES = [
    pytest.param(FLEET, {}, 0, "PASS, proceed: llm/chat canary 6d5f", id="pass"),
    pytest.param(
        replace(FLEET, slowdown={"ttft": 1.4}),
        {},
        1,
        "FAIL, abort: llm/chat canary 6d5f",
        id="fail",
    ),
    pytest.param(
        NOISY,
        {},
        0,
        "INCONCLUSIVE, proceed: llm/chat canary 6d5f; evidence: weak, blind below +",
        id="weak",
    ),
    pytest.param(
        NOISY,
        {"mode": "prove"},
        3,
        "INCONCLUSIVE, pause: llm/chat canary 6d5f",
        id="inconclusive",
    ),
]


def written(path: Path, content: dict[str, object]) -> str:
    file = path / "cells.json"
    file.write_text(json.dumps(content))
    return str(file)


def content(fleet: Fleet, policy: dict[str, Any]) -> dict[str, object]:
    return cells(fleet.observe(np.random.default_rng(2)), policy=policy)


@pytest.mark.parametrize(("fleet", "policy", "code", "first"), CASES)
def test_five_lines_and_the_exit_code_tell_the_verdict(
    tmp_path: Path, fleet: Fleet, policy: dict[str, Any], code: int, first: str
) -> None:
    result = CliRunner().invoke(app, ["evaluate", written(tmp_path, content(fleet, policy))])
    lines = result.stdout.splitlines()
    assert result.exit_code == code
    assert lines[0].startswith(first)
    assert [line.split(":")[0] for line in lines[1:]] == [
        "why",
        "gates (+ is worse)",
        "data",
        "next",
    ]


@pytest.mark.parametrize(("fleet", "policy", "code", "first"), CASES)
def test_the_json_holds_the_same_and_the_same_file_gives_the_same_bytes(
    tmp_path: Path, fleet: Fleet, policy: dict[str, Any], code: int, first: str
) -> None:
    file = written(tmp_path, content(fleet, policy))
    results = [CliRunner().invoke(app, ["evaluate", file, "--json"]) for _ in range(2)]
    assert results[0].stdout_bytes == results[1].stdout_bytes
    assert results[0].exit_code == code
    found = json.loads(results[0].stdout)
    assert found["schema"] == "inference-rollouts.io/analysis-verdict/v1"
    assert found["lines"][0].startswith(first)
    assert {gate["unit"] for gate in found["gates"]} == {"pod", "request within pod"}


def test_the_returned_ledger_is_what_the_next_look_takes(tmp_path: Path) -> None:
    data = FLEET.observe(np.random.default_rng(2))
    book: object = None
    for number, fraction in enumerate((0.5, 1.0, 1.0)):
        look = {"id": f"run-{number}", "fraction": fraction}
        file = written(tmp_path, cells(data, look=look, ledger=book))
        found = json.loads(CliRunner().invoke(app, ["evaluate", file, "--json"]).stdout)
        book = found["ledger"]
    assert found["look"]["kind"] == "extra"
    assert [x["id"] for x in found["ledger"]["segments"][0]["looks"]] == [
        "run-0",
        "run-1",
        "run-2",
    ]


def test_an_unequal_bucket_layout_pauses_with_the_reason(tmp_path: Path) -> None:
    document: Any = content(FLEET, {})
    document["pods"][0]["histograms"]["ttft"]["le"][-1] = 5120.0
    result = CliRunner().invoke(app, ["evaluate", written(tmp_path, document)])
    assert result.exit_code == 3
    assert "why: ttft/mean: bucket edges differ" in result.stdout


def test_a_wrong_file_is_named_on_stderr_with_every_fault(tmp_path: Path) -> None:
    document: Any = content(FLEET, {})
    document["pods"][0]["arm"] = "baseline"
    document["look"]["fraction"] = 0
    result = CliRunner().invoke(app, ["evaluate", written(tmp_path, document)])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "pods[0].arm: Input should be 'canary' or 'stable'" in result.stderr
    assert "look.fraction: Input should be greater than 0" in result.stderr


def test_a_missing_file_is_bad_input(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "none.json")])
    assert result.exit_code == 2
    assert "No such file" in result.stderr


def test_standard_input_is_read_for_a_dash() -> None:
    result = CliRunner().invoke(app, ["evaluate", "-"], input=json.dumps(content(FLEET, {})))
    assert result.exit_code == 0
