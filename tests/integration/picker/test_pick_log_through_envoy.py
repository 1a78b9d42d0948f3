"""The pick log of requests through a real Envoy, and what `picker explain` makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typer.testing import CliRunner

from inference_picker.command import app
from support.picker_rig import RECOMMENDED, running_setup

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_requests_choice_can_be_explained_afterwards(tmp_path: Path) -> None:
    log = tmp_path / "picks.jsonl"
    async with running_setup(tmp_path, RECOMMENDED, pick_log=log) as setup:
        status, _ = await setup.chat(headers={"x-request-id": "why"})
        assert status == 200
        await setup.chat(model="base", headers={"x-request-id": "broken", "x-test-status": "500"})
        await setup.landed()
        assert setup.metric("pick_log_dropped_total") == 0
        addresses = [each.address for each in setup.upstreams]

    # Closing the picker writes what was left.
    result = CliRunner().invoke(app, ["explain", str(log), "--request", "why"])
    assert result.exit_code == 0
    assert "model travelhelper as travel-helper-v" in result.output
    assert all(address in result.output for address in addresses)
    errors = CliRunner().invoke(app, ["explain", str(log), "--errors"])
    assert "status 500, 5xx" in errors.output
    assert "why" not in errors.output
