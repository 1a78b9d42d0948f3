from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from typer.testing import CliRunner

from inference_analysis.command import app
from inference_analysis.errors import InputError
from inference_analysis.prompts import scores
from support.analysis_simulation import Fleet, cells

if TYPE_CHECKING:
    from pathlib import Path

HEADER = {"schema": "inference-rollouts.io/analysis-scores/v1"}


def line(identifier: str, arm: str, score: float | None = 1.0, **more: Any) -> dict[str, Any]:
    return {"id": identifier, "arm": arm} | ({} if score is None else {"score": score}) | more


def pair(identifier: str, canary: float, stable: float, **more: Any) -> list[dict[str, Any]]:
    return [line(identifier, "canary", canary, **more), line(identifier, "stable", stable, **more)]


def many(canary: float, stable: float = 1.0, n: int = 100) -> list[dict[str, Any]]:
    return [row for i in range(n) for row in pair(f"p{i}", canary if i % 2 else stable, stable)]


def content(*rows: object, header: dict[str, Any] | None = None) -> bytes:
    return "\n".join(json.dumps(row) for row in (HEADER | (header or {}), *rows)).encode()


def written(path: Path, *rows: object, name: str = "scores.jsonl", **header: Any) -> str:
    (path / name).write_bytes(content(*rows, header=header))
    return str(path / name)


def test_a_line_of_another_tool_needs_three_fields_only() -> None:
    found = scores.read(content(*pair("a", 0.25, 1.0, model_graded=True)))
    assert scores.prompt_documents({"x": found}) == [
        {
            "id": "a",
            "measure": "quality",
            "topic": "",
            "weight": 1.0,
            "canary": [0.25],
            "stable": [1.0],
            "text": "",
            "canaryAnswer": "",
            "stableAnswer": "",
            "canaryReason": "",
            "stableReason": "",
        }
    ]


def test_repeats_are_put_together_and_the_one_that_loses_most_is_shown() -> None:
    rows = [
        line("a", "canary", 1.0, repeat=0, answer="fine"),
        line("a", "canary", 0.0, repeat=1, answer="bad", reason="no number"),
        line("a", "stable", 1.0, repeat=0, answer="good"),
        line("a", "stable", 0.5, repeat=1, answer="fair", answerSha256="00"),
    ]
    (found,) = scores.prompt_documents({"x": scores.read(content(*rows))})
    assert (found["canary"], found["stable"]) == ([1.0, 0.0], [1.0, 0.5])
    assert (found["canaryAnswer"], found["stableAnswer"]) == ("bad", "fair")
    assert found["canaryReason"] == "no number"


def test_a_hashed_answer_shows_its_digest() -> None:
    rows = pair("a", 0.0, 1.0, answerSha256="ab12")
    (found,) = scores.prompt_documents({"x": scores.read(content(*rows))})
    assert found["canaryAnswer"] == "(sha256 ab12)"


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        pytest.param([], "no scores", id="none"),
        pytest.param(
            [line("a", "baseline")],
            "line 2: arm: Input should be 'canary' or 'stable'",
            id="unknown-arm",
        ),
        pytest.param(
            [line("a", "canary", 1.2)], "line 2: score: Input should be less", id="above-1"
        ),
        pytest.param([line("a", "canary", -0.1)], "line 2: score: Input should be", id="below-0"),
        pytest.param([line("a", "canary", float("nan"))], "NaN is no number", id="nan"),
        pytest.param([line("a", "canary", None)], "neither score nor scores", id="no-score"),
        pytest.param(
            [line("a", "canary", 1.0, scores={"quality": 1.0})], "say the same", id="both"
        ),
        pytest.param(
            [*pair("a", 1, 1), line("a", "canary", 0.0)],
            "line 4: id: 'a' of canary is also on line 2",
            id="duplicate",
        ),
        pytest.param(
            [*pair("a", 1, 1), line("b", "canary")],
            "'b': no quality score of arm stable",
            id="one-arm-only",
        ),
        pytest.param([line("a", "canary", weight=0)], "line 2: weight", id="weight"),
    ],
)
def test_what_is_wrong_with_scores_is_named(rows: list[object], problem: str) -> None:
    with pytest.raises(InputError) as caught:
        scores.read(content(*rows))
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b'{"schema": "v2"}', "line 1: schema: Input should be", id="version"),
        pytest.param(b"id,arm,score", "line 1: no JSON", id="csv"),
    ],
)
def test_a_file_of_another_kind_is_refused(raw: bytes, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        scores.read(raw)


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        pytest.param(
            {"canaryHash": "6d5f"}, {"canaryHash": "77aa"}, "canaryHash: differs", id="versions"
        ),
        pytest.param(
            {"promptSet": {"name": "x", "version": "1"}},
            {"promptSet": {"name": "x", "version": "2"}},
            "promptSet: differs",
            id="prompt-sets",
        ),
        pytest.param(
            {"judge": {"model": "a"}}, {"judge": {"model": "b"}}, "judge: differs", id="judges"
        ),
        pytest.param({}, {}, "two: 'a' has a quality score in one too", id="twice"),
    ],
)
def test_files_that_do_not_compare_are_refused(
    first: dict[str, Any], second: dict[str, Any], problem: str
) -> None:
    files = {
        "one": scores.read(content(*pair("a", 1, 1), header=first)),
        "two": scores.read(content(*pair("a", 1, 1), header=second)),
    }
    with pytest.raises(InputError) as caught:
        scores.prompt_documents(files)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("canary", "code", "verdict"),
    [pytest.param(1.0, 0, "PASS, proceed", id="equal"), pytest.param(0.6, 1, "FAIL", id="worse")],
)
def test_scores_alone_are_judged(tmp_path: Path, canary: float, code: int, verdict: str) -> None:
    file = written(tmp_path, *many(canary), canaryHash="6d5f")
    result = CliRunner().invoke(app, ["evaluate", "--scores", file])
    assert result.exit_code == code
    assert result.stdout.startswith(verdict)
    assert "canary 6d5f" in result.stdout
    assert "data: 100 prompts, planned look" in result.stdout


def test_scores_are_a_gate_beside_the_cells(tmp_path: Path) -> None:
    fleet = Fleet(requests=200.0, drift_sd=0.0)
    file = tmp_path / "cells.json"
    file.write_text(json.dumps(cells(fleet.observe(np.random.default_rng(2)))))
    worse = written(tmp_path, *many(0.6))
    result = CliRunner().invoke(app, ["evaluate", str(file), "--scores", worse, "--json"])
    assert result.exit_code == 1
    outcomes = {gate["name"]: gate["outcome"] for gate in json.loads(result.stdout)["gates"]}
    assert outcomes["quality/score"] == "fail"
    assert outcomes["ttft/mean"] == "proved"


def test_scores_of_another_canary_are_refused(tmp_path: Path) -> None:
    fleet = Fleet(requests=200.0, drift_sd=0.0)
    file = tmp_path / "cells.json"
    file.write_text(json.dumps(cells(fleet.observe(np.random.default_rng(2)))))
    other = written(tmp_path, *many(1.0), canaryHash="ffff")
    result = CliRunner().invoke(app, ["evaluate", str(file), "--scores", other])
    assert result.exit_code == 2
    assert "canaryHash is 'ffff', the cells are of '6d5f'. Probe these versions" in result.stderr


def test_every_fault_of_every_file_is_named_with_its_file(tmp_path: Path) -> None:
    one = written(tmp_path, line("a", "canary"), name="one.jsonl")
    two = written(tmp_path, line("b", "nobody"), name="two.jsonl")
    result = CliRunner().invoke(app, ["evaluate", "--scores", one, "--scores", two])
    assert result.exit_code == 2
    assert f"{one}: 'a': no quality score of arm stable" in result.stderr
    assert f"{two}: line 2: arm" in result.stderr


def test_nothing_to_evaluate_is_said() -> None:
    result = CliRunner().invoke(app, ["evaluate"])
    assert result.exit_code == 2
    assert "give a cells file, --scores, or both" in result.stderr


def test_drift_that_nobody_asked_about_is_a_note_and_no_verdict(tmp_path: Path) -> None:
    rows = [
        line(f"p{i}", arm, None, scores={"quality": 1.0, "refusal": value, "length": length})
        for i in range(100)
        for arm, value, length in (
            ("canary", float(i % 3 > 0), 0.7),
            ("stable", 1.0, 0.3),
        )
    ]
    result = CliRunner().invoke(app, ["evaluate", "--scores", written(tmp_path, *rows)])
    assert result.exit_code == 0
    assert "answers that refuse: canary 34%, stable 0%" in result.stdout
    assert "the canary's answers to the prompts differ in length by +133%" in result.stdout
