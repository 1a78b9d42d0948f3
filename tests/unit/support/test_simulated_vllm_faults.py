from __future__ import annotations

import random
from typing import Any

import pytest

from support.simulated_vllm.faults import Faults, parse_faults


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", Faults(), id="none"),
        pytest.param("error", Faults(error_rate=1.0), id="short-word"),
        pytest.param("slow=2.5", Faults(slow_factor=2.5), id="short-word-with-value"),
        pytest.param(
            "error_rate=0.1, error_status=503",
            Faults(error_rate=0.1, error_status=503),
            id="several",
        ),
        pytest.param("unhealthy", Faults(unhealthy=True), id="flag"),
        pytest.param(
            "worse,models=v2+v3",
            Faults(worse_answers=1.0, models=("v2", "v3")),
            id="for-some-models",
        ),
    ],
)
def test_a_text_reads_as_faults(text: str, expected: Faults) -> None:
    assert Faults().merged(parse_faults(text)) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"slwo": 1}, "unknown fault 'slwo', known are", id="unknown-name"),
        pytest.param({"error_rate": 2}, "error_rate: found 2.0, expected a share", id="not-a-rate"),
        pytest.param(
            {"hang_rate": "many"}, "hang_rate: found 'many', expected a number", id="word"
        ),
        pytest.param({"hang_rate": None}, "hang_rate: found None, expected a number", id="null"),
        pytest.param({"slow_factor": 0.5}, "slow_factor: found 0.5, expected at least", id="fast"),
        pytest.param({"error_status": 200}, "error_status: found 200, expected 400", id="status"),
        pytest.param({"unhealthy": "maybe"}, "unhealthy: found 'maybe'", id="not-a-bool"),
        pytest.param({"models": "v1"}, "models: found 'v1', expected a list", id="not-a-list"),
    ],
)
def test_a_wrong_fault_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Faults().merged(changes)


def test_a_change_keeps_the_other_faults() -> None:
    assert Faults(error_rate=0.5).merged({"slow_factor": 2}) == Faults(
        error_rate=0.5, slow_factor=2.0
    )


def test_faults_for_some_models_leave_the_others_alone() -> None:
    faults = Faults(error_rate=1.0, models=("v2",))
    assert faults.for_request("v2", None).error_rate == 1.0
    assert faults.for_request("v1", None) == Faults()


def test_a_header_comes_on_top_of_the_servers_faults() -> None:
    found = Faults(slow_factor=2.0).for_request("m", "worse")
    assert (found.slow_factor, found.worse_answers) == (2.0, 1.0)


def test_shares_of_requests_come_out_as_asked() -> None:
    faults = Faults(error_rate=0.2, hang_rate=0.5, cut_rate=0.5)
    source = random.Random(1)
    drawn = [faults.draw(source) for _ in range(4000)]
    # hang and cut are drawn from what is left: .8 * .5 and .4 * .5. Four standard errors of a
    # share of .4 in 4000 draws: 4 * sqrt(.4 * .6 / 4000) = .031.
    assert sum(d.error for d in drawn) / 4000 == pytest.approx(0.2, abs=0.031)
    assert sum(d.hang for d in drawn) / 4000 == pytest.approx(0.4, abs=0.031)
    assert sum(d.cut for d in drawn) / 4000 == pytest.approx(0.2, abs=0.031)
    assert all(d.error + d.hang + d.cut <= 1 for d in drawn)
