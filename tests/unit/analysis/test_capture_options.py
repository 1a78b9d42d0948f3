"""The options by which Prometheus is read: the same for `capture` and `replay`."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from inference_analysis.capture_options import CaptureOptions
from inference_analysis.command import app
from support.analysis_simulation import Fleet, cells

if TYPE_CHECKING:
    from pathlib import Path

ACCESS = ("--prometheus", "http://127.0.0.1:1", "--namespace", "llm", "--rollout", "chat")


@pytest.mark.parametrize("command", ["capture", "replay"])
def test_both_commands_take_every_option(command: str) -> None:
    found = {p.name for p in get_command(app).commands[command].params}  # type: ignore[attr-defined]
    assert found >= {field.name for field in fields(CaptureOptions)}


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        pytest.param((), 2, "--prometheus: missing", id="nothing"),
        pytest.param(ACCESS[:2], 2, "--namespace: missing", id="no-namespace"),
        pytest.param(ACCESS, 2, "--canary-hash", id="no-hashes"),
        pytest.param(
            (*ACCESS, "--pool", "chat"), 2, "--pool: only with --arms", id="pods-have-no-pool"
        ),
        pytest.param(
            (*ACCESS, "--arms", "versions", "--no-control", "--stable-adapter", "a"),
            2,
            "--no-control: only with --arms adapters",
            id="versions-have-no-adapter",
        ),
        pytest.param(
            (*ACCESS, "--arms", "adapters", "--no-control", "--control-adapter", "a"),
            2,
            "--control-adapter: given beside --no-control",
            id="a-control-and-none",
        ),
        pytest.param(
            (*ACCESS, "--canary-hash", "a", "--stable-hash", "b"),
            4,
            "http://127.0.0.1:1: not reached",
            id="not-reached",
        ),
    ],
)
@pytest.mark.parametrize("command", ["capture", "replay"])
def test_what_is_missing_is_said(command: str, args: tuple[str, ...], code: int, said: str) -> None:
    result = CliRunner().invoke(app, [command, *args])
    assert result.exit_code == code
    assert said in result.stderr


def test_a_file_and_prometheus_at_once_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "cells.json"
    file.write_text(json.dumps(cells(Fleet(windows=10).observe(np.random.default_rng(1)))))
    result = CliRunner().invoke(app, ["replay", str(file), "--minutes", "10"])
    assert result.exit_code == 2
    assert "do not go with a file" in result.stderr
    assert CliRunner().invoke(app, ["replay", str(file)]).exit_code in {0, 1, 3}
