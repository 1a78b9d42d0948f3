"""What the plots of a report show, as numbers.

Nothing here decides; it is the same data once more, cut so that a reader can see why.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.special import ndtri

from inference_analysis.confounders import check_mix
from inference_analysis.gates import Context, gate_result
from inference_analysis.ledgers import LookKind
from inference_analysis.policies import Statistic
from inference_analysis.spending import critical_values, spent
from inference_analysis.standardisation import LEAST_POD_REQUESTS, expectations
from inference_analysis.units import Kind, units_of
from inference_analysis.verdicts import Outcome

if TYPE_CHECKING:
    from inference_analysis.evaluation import Evaluation
    from inference_analysis.ledgers import Look, Stand
    from inference_analysis.observations import BoolArray, FloatArray, Histogram, Observations
    from inference_analysis.standardisation import PodEffects
    from inference_analysis.verdicts import GateResult

MOST_PATHS: Final = 12
"""Metrics that are drawn over time; a report with more is a wall."""
_POD_STATISTICS: Final = (Statistic.MEAN, Statistic.TAIL)


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """The numbers behind the plots: pods, distributions, time, looks."""
    observations = evaluation.observations
    latency = [r for r in evaluation.results if r.gate.statistic in _POD_STATISTICS]
    metrics = [
        m for m in dict.fromkeys(r.gate.metric for r in latency) if m in observations.histograms
    ]
    return {
        "pods": [found for r in latency if (found := _pods(r, evaluation)) is not None],
        "distributions": [
            _distribution(metric, observations.histograms[metric], observations)
            for metric in metrics[:MOST_PATHS]
        ],
        "paths": [
            _path(metric, observations.histograms[metric], evaluation)
            for metric in metrics[:MOST_PATHS]
        ],
        "looks": [
            {"id": look.id, "until": look.until_s, "kind": look.kind.value}
            for look in _looks(evaluation)
        ],
        "boundary": _boundary(evaluation),
    }


def _looks(evaluation: Evaluation) -> tuple[Look, ...]:
    """The looks of this epoch's plan up to this one."""
    return (*evaluation.stand.segment.looks, evaluation.stand.look)


def _effects(result: GateResult, evaluation: Evaluation) -> PodEffects | None:
    observations = evaluation.observations
    histogram = observations.histograms.get(result.gate.metric)
    if histogram is None or result.comparison is None:
        return None
    units = units_of(observations)
    if units.kind is Kind.WINDOWS:
        return None
    if result.gate.statistic is Statistic.MEAN:
        return units.mean(histogram, observations)
    edge = int(np.argmin(np.abs(histogram.le - float(dict(result.details)["edge"]))))
    return units.tail(histogram, edge, observations)


def _pods(result: GateResult, evaluation: Evaluation) -> dict[str, Any] | None:
    """Each pod's log(observed / expected) of one gate."""
    effects = _effects(result, evaluation)
    if effects is None:
        return None
    pods = evaluation.observations.pods
    return {
        "gate": result.gate.name,
        "pods": [
            {
                "name": pods[int(at)].name,
                "node": pods[int(at)].node,
                "arm": pods[int(at)].arm.value,
                "effect": float(effect),
                "requests": float(requests),
            }
            for at, effect, requests in zip(
                effects.index, effects.effect, effects.requests, strict=True
            )
        ],
    }


def _distribution(metric: str, histogram: Histogram, observations: Observations) -> dict[str, Any]:
    """Share of the requests up to each bucket edge, per arm, with the range of its pods."""
    buckets = np.where(observations.usable[:, :, None], histogram.buckets, 0).sum(axis=1)
    below = np.cumsum(buckets, axis=1, dtype=np.float64)
    found: dict[str, Any] = {"metric": metric, "le": histogram.le.tolist()}
    for name, arm in (("canary", observations.canary), ("stable", ~observations.canary)):
        found[name] = _shares(below[arm])
    return found


def _shares(below: FloatArray) -> dict[str, list[float]]:
    total = below.sum(axis=0)
    pods = below[below[:, -1] >= LEAST_POD_REQUESTS]
    each = pods[:, :-1] / pods[:, -1:]
    return {
        "share": (total[:-1] / max(total[-1], 1.0)).tolist(),
        "low": each.min(axis=0).tolist() if len(each) else [],
        "high": each.max(axis=0).tolist() if len(each) else [],
    }


def _path(metric: str, histogram: Histogram, evaluation: Evaluation) -> dict[str, Any]:
    """The canary's observed over expected mean, by window and up to it; null without requests."""
    observations = evaluation.observations
    usable, canary = observations.usable, observations.canary
    counts = np.where(usable, histogram.count, 0.0)
    sums = np.where(usable, histogram.sum, 0.0)
    observed, expected = _by_window(sums, counts, canary, units_of(observations).strata)
    of_stable = _running(observed[~canary], expected[~canary])
    total_o = observed[canary].sum(axis=0)
    total_e = expected[canary].sum(axis=0)
    known = ~np.isnan(of_stable).all(axis=0) if len(of_stable) else np.zeros(0, dtype=np.bool_)
    low, high = np.full(total_o.size, np.nan), np.full(total_o.size, np.nan)
    if known.size:
        low[known] = np.nanmin(of_stable[:, known], axis=0)
        high[known] = np.nanmax(of_stable[:, known], axis=0)
    return {
        "metric": metric,
        "until": (observations.start_s + observations.seconds).tolist(),
        "window": _ratio(total_o, total_e),
        "running": _listed(_running(total_o[None, :], total_e[None, :])[0]),
        "stableLow": _listed(low),
        "stableHigh": _listed(high),
    }


def _by_window(
    outcome: FloatArray, requests: FloatArray, canary: BoolArray, strata: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Observed and expected per pod and window, (P, W) each."""
    columns = [
        expectations(outcome[:, [w]], requests[:, [w]], canary, strata)[:2]
        for w in range(outcome.shape[1])
    ]
    return np.stack([c[0] for c in columns], axis=1), np.stack([c[1] for c in columns], axis=1)


def _running(observed: FloatArray, expected: FloatArray) -> FloatArray:
    """(rows, W) ratio of the sums so far; NaN before the first request."""
    top, bottom = np.cumsum(observed, axis=1), np.cumsum(expected, axis=1)
    result: FloatArray = np.divide(
        top, bottom, out=np.full(top.shape, np.nan), where=(bottom > 0) & (top > 0)
    )
    return result


def _ratio(top: FloatArray, bottom: FloatArray) -> list[float | None]:
    ratio = np.divide(top, bottom, out=np.full(top.shape, np.nan), where=(bottom > 0) & (top > 0))
    return _listed(ratio)


def _listed(values: FloatArray) -> list[float | None]:
    return [None if np.isnan(v) else float(v) for v in values]


def _boundary(evaluation: Evaluation) -> dict[str, Any]:
    """Test statistic and critical value of each look, per gate, and the budget spent.

    A past look's statistic is computed anew from the windows that it saw; windows that this file
    no longer has are missing from it, so such looks are left out.
    """
    stand, policy = evaluation.stand, evaluation.policy
    looks = _looks(evaluation)
    budget = stand.segment.budget
    planned = [x for x in looks if x.kind is LookKind.PLANNED]
    fractions = tuple(stand.segment.scaled(x.fraction) for x in planned)
    ahead = () if not fractions or fractions[-1] >= 1.0 else (1.0,)
    gates = []
    for result in evaluation.results:
        if result.comparison is None or result.outcome is Outcome.SHOWN:
            continue
        alpha = policy.alpha(result.gate)
        critical = critical_values((*fractions, *ahead), alpha * budget) if fractions else ()
        points = []
        for look in looks:
            z = _statistic(result, evaluation, look)
            if look.kind is LookKind.PLANNED:
                limit = critical[planned.index(look)]
            else:
                limit = float(-ndtri(alpha * stand.reserve * 2.0**-look.slot))
            points.append(
                {
                    "id": look.id,
                    "kind": look.kind.value,
                    "fraction": look.fraction,
                    "z": z,
                    "critical": limit,
                }
            )
        gates.append(
            {
                "gate": result.gate.name,
                "points": points,
                "finalCritical": critical[-1] if ahead else None,
            }
        )
    used = sum(stand.reserve * 2.0**-x.slot for x in looks if x.kind is LookKind.EXTRA)
    family = policy.family_alpha
    return {
        "gates": gates,
        "budget": family * budget,
        "spent": [
            {"fraction": x.fraction, "alpha": spent(at, family * budget)}
            for x, at in zip(planned, fractions, strict=True)
        ],
        "spentByExtraLooks": family * used,
        "familyAlpha": family,
    }


def _statistic(result: GateResult, evaluation: Evaluation, look: Look) -> float | None:
    """The normal quantile of one gate's p at one look."""
    if look is evaluation.stand.look:
        return _normal(result.harm_p)
    observations = evaluation.observations.between(evaluation.stand.segment.since_s, look.until_s)
    if not observations.start_s.size or result.gate.statistic is Statistic.SCORE:
        return None
    past = gate_result(
        result.gate,
        Context(
            observations=observations,
            units=units_of(observations),
            policy=evaluation.policy,
            stand=_stand_at(evaluation.stand, look),
            mix=check_mix(observations, units_of(observations))[1],
            findings=(),
        ),
        dict(evaluation.ledger.tail_edges),
    )
    return None if past.comparison is None else _normal(past.harm_p)


def _stand_at(stand: Stand, look: Look) -> Stand:
    """Where a past look of the same segment stood."""
    segment = stand.segment
    before = replace(segment, looks=segment.looks[: segment.looks.index(look)])
    ledger = replace(stand.ledger, segments=(*stand.ledger.segments[:-1], before))
    return replace(stand, ledger=ledger, look=look)


def _normal(p: float) -> float:
    return float(-ndtri(min(max(p, 1e-12), 1.0 - 1e-12)))
