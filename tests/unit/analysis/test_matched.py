"""A matched control: few pods serve it, and the rest of stable says how much pods differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from inference_analysis.error_rates import compare_errors, pods_dispersion
from inference_analysis.evaluation import evaluate
from inference_analysis.ledgers import Ledger, LookRequest
from inference_analysis.observations import Observations, Requests
from inference_analysis.policies import Policy
from inference_analysis.units import units_of
from inference_analysis.verdicts import Outcome, Verdict
from support.analysis_simulation import Fleet

FLEET = Fleet(canary=1, stable=7, control=1, requests=200.0, drift_sd=0.0)


def observed(fleet: Fleet = FLEET) -> Observations:
    return fleet.observe(np.random.default_rng(6))


def test_the_estimate_is_against_the_control_and_the_spread_is_the_backgrounds() -> None:
    data = observed()
    background = data.background
    assert background is not None
    units = units_of(data)
    spread = units.spread("ttft", data)
    assert spread is not None
    found = units.compare(units.mean(data.histograms["ttft"], data), spread=spread)
    assert found is not None
    h = data.histograms["ttft"]
    # Windows are compared one by one: expected is the control's mean times the canary's requests.
    expected = (h.count[0] * h.sum[1] / h.count[1]).sum()
    assert found.estimate == pytest.approx(np.log(h.sum[0].sum() / expected), rel=1e-9)
    assert (spread.control_pods, spread.df, found.df) == (1, 5.0, 5.0)
    assert spread.variance**0.5 == pytest.approx(0.02, rel=0.7)
    # s^2 (1 / 1 + 1 / 1) and what sampling adds; with equal requests nothing to speak of.
    assert found.se**2 == pytest.approx(2.0 * spread.variance, rel=0.15)


@pytest.mark.parametrize(
    ("slowdown", "verdicts"),
    [
        pytest.param(1.0, {Verdict.PASS, Verdict.INCONCLUSIVE}, id="equal"),
        pytest.param(3.0, {Verdict.FAIL}, id="three-times-as-slow"),
    ],
)
def test_one_canary_pod_against_one_control_pod_decides(
    slowdown: float, verdicts: set[Verdict]
) -> None:
    data = observed(replace(FLEET, slowdown={"ttft": slowdown}))
    look = LookRequest(id="a", fraction=1.0)
    found = evaluate(data, Policy(), look, Ledger(), fingerprint="x")
    assert found.decision.verdict in verdicts
    assert all(r.outcome is not Outcome.NO_DATA for r in found.results)
    bare = evaluate(replace(data, background=None), Policy(), look, Ledger(), fingerprint="x")
    assert all(r.outcome is Outcome.NO_DATA for r in bare.results)


def test_the_rest_being_slower_is_not_the_canarys_merit() -> None:
    """A busier rest of the pool tells how much pods differ, never how fast they should be."""
    data = observed()
    assert data.background is not None
    h = data.background.histograms["ttft"]
    slower = replace(
        data.background,
        histograms={**data.background.histograms, "ttft": replace(h, sum=3 * h.sum)},
    )
    units = units_of(data)
    effects = units.mean(data.histograms["ttft"], data)
    both = [
        units.compare(effects, spread=units.spread("ttft", each))
        for each in (data, replace(data, background=slower))
    ]
    assert both[0] is not None
    assert both[1] is not None
    assert both[0].estimate == both[1].estimate
    assert both[0].se == pytest.approx(both[1].se, rel=1e-9)


def test_errors_take_the_overdispersion_of_the_rest() -> None:
    total = np.full((4, 10), 100.0)
    errors = np.zeros((4, 10))
    errors[0, 0] = 40.0  # one pod in four fails in a burst
    found = pods_dispersion(Requests(total=total, errors=errors), np.ones((4, 10), dtype=np.bool_))
    assert found is not None
    # Pearson: (40 - 10)^2 / 10 + 3 * 10^2 / 10 = 120, on 3 degrees of freedom.
    assert list(found) == pytest.approx([40.0, 3.0])
    arms = Requests(total=total[:2], errors=np.zeros((2, 10)))
    usable, canary = np.ones((2, 10), dtype=np.bool_), np.array([True, False])
    assert compare_errors(arms, usable, canary) is None
    comparison = compare_errors(arms, usable, canary, spread=found)
    assert comparison is not None
    assert [comparison.dispersion, comparison.df] == pytest.approx([40.0, 3.0])
