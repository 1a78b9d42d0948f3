"""The comparison of answers to the same prompts."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from inference_analysis.comparisons import TComparison
from inference_analysis.planning import LONGEST, Need
from inference_analysis.spending import falling_root

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference_analysis.observations import FloatArray, Prompt

LEAST_PROMPTS = 10
LEAST_TOPICS = 8
"""Below this many topics a clustered variance is worse than none."""
WORST = 10
"""Prompts that a report shows side by side."""
_TINY = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityComparison(TComparison):
    """A paired t test whose upper bound also holds when few prompts lose anything.

    Scores are mostly equal: among 100 prompts two lose all and 98 nothing. There t takes the little
    spread it sees for all there is, and calls a version that loses exactly the margin "not worse
    by the margin" in .12 of the cases instead of .05 (100 prompts, margin .05).
    """

    prompts: float
    """Effective number of prompts: sum(w)^2 / sum(w^2)."""
    lost: float
    """Weighted mean of max(d, 0), and..."""
    lost_size: float
    """...what a losing prompt loses on average (sum of d^2 / sum of d), 1 if none loses."""
    won: float
    won_size: float

    def upper(self, level: float) -> float:
        """One-sided upper confidence bound at 1 - ``level``: the largest of three.

        - t, as ever;
        - the score bound, theta with (theta - estimate) / SE0(theta) = t_{1-level}, where SE0 is
          the standard error if theta were true (Tango 1998, Stat. Med. 17:891, for matched pairs;
          here losses and wins have a size each);
        - -ln(level) / n: a total loss in that share of the prompts leaves all n of them untouched
          with probability ``level`` (the rule of three).
        """
        by_t = self._plain_upper(level)
        unseen = -math.log(max(level, 1e-300)) / self.prompts
        quantile = self._quantile(level)

        def missing(theta: float) -> float:
            return self.estimate + quantile * self._null_se(theta) - theta

        top = min(self.lost_size, 1.0) * (1.0 - 1e-9)
        by_score = by_t
        if by_t < top and missing(by_t) > 0.0:
            by_score = falling_root(missing, 0.0, by_t, top)
        return min(max(by_t, by_score, unseen), 1.0)

    def _plain_upper(self, level: float) -> float:
        return self.estimate + self._quantile(level) * self.se

    def mde(self, level: float, power: float = 0.9) -> float:
        """T * SE with T = t_{1-level} + t_{power}, and no less than with SE at that very effect.

        Where few prompts lose, the spread grows with the effect e: e^2 = T^2 (size e - e^2) / n.
        """
        total = self._quantile(level) + self._quantile(1.0 - power)
        sparse = total**2 * self.lost_size / (self.prompts + total**2)
        return min(max(total * self.se, sparse), 1.0)

    def grown(self, factor: float) -> QualityComparison:
        """The same with ``factor`` times the prompts, and as equal as equal versions are."""
        return replace(
            self,
            estimate=0.0,
            se=self.se / math.sqrt(factor),
            df=self.df * factor,
            prompts=self.prompts * factor,
        )

    def _null_se(self, theta: float) -> float:
        """Standard error of the estimate if the true mean loss were ``theta``.

        A prompt loses ``a`` with probability p, wins ``g`` with probability q, and p a - q g =
        theta. q maximises the likelihood of the observed shares under this constraint; it is the
        positive root of a quadratic, which for a = g = 1 is Tango's.
        """
        a, g = self.lost_size, self.won_size
        b, c = self.lost / a, self.won / g
        rest = max(1.0 - b - c, 0.0)
        h, room = g / a + 1.0, 1.0 - theta / a
        linear = (b + c) * g * room - (c + rest) * h * theta
        square = g * h
        q = (linear + math.sqrt(linear**2 + 4.0 * square * c * theta * room)) / (2.0 * square)
        p = (theta + q * g) / a
        return math.sqrt(max(p * a**2 + q * g**2 - theta**2, 0.0) / self.prompts)


def losses(prompts: Sequence[Prompt]) -> FloatArray:
    """(N,) mean stable score minus mean canary score of each prompt."""
    return np.array([_mean(p.stable) - _mean(p.canary) for p in prompts], dtype=np.float64)


def _mean(scores: Sequence[float]) -> float:
    """Of a handful of numbers, where numpy's takes fifty times as long."""
    return sum(scores) / len(scores)


def compare_quality(prompts: Sequence[Prompt]) -> QualityComparison | None:
    """Paired t test over prompts of one measure; None with fewer than ten of them.

    The unit is the prompt: its repeated answers are averaged first. Treating them as independent
    rejects .10-.15 instead of .05 once a version suits some prompts better than others.

    With equal weights and no topics it is ``scipy.stats.ttest_1samp`` on the losses. With weights
    w the estimate is sum(w d) / sum(w) and its variance n / (n - 1) * sum(w^2 (d - mean)^2) /
    sum(w)^2. With eight topics or more, sums run over topics (Miller 2024, arXiv 2411.00640,
    section 2.2) and the larger of both variances counts, on topics - 1 degrees of freedom.
    """
    if len(prompts) < LEAST_PROMPTS:
        return None
    loss = losses(prompts)
    weight = np.array([p.weight for p in prompts], dtype=np.float64)
    total = weight.sum()
    estimate = float(weight @ loss / total)
    residual = weight * (loss - estimate)
    n = len(prompts)
    variance = float((residual**2).sum() / total**2) * n / (n - 1)
    df, method = float(n - 1), "paired t over prompts"
    names, position = np.unique([p.topic for p in prompts], return_inverse=True)
    effective = float(total**2 / (weight**2).sum())
    if len(names) >= LEAST_TOPICS:
        sums = np.bincount(position, weights=residual)
        groups = len(names)
        clustered = float((sums**2).sum() / total**2) * groups / (groups - 1)
        if clustered > variance:
            # Prompts that move together tell less than as many that do not.
            effective *= variance / clustered
            variance, df = clustered, float(groups - 1)
            method = "paired t over prompts, clustered by topic"
    lost, won = np.maximum(loss, 0.0), np.maximum(-loss, 0.0)
    return QualityComparison(
        estimate=estimate,
        se=max(float(np.sqrt(variance)), _TINY),
        df=df,
        n_canary=n,
        n_stable=n,
        unit="prompt",
        method=method,
        between_variance=0.0,
        sampling_variance=variance * n,
        prompts=effective,
        lost=float(weight @ lost / total),
        lost_size=_size(lost, weight),
        won=float(weight @ won / total),
        won_size=_size(won, weight),
    )


def _size(values: FloatArray, weight: FloatArray) -> float:
    """What the prompts with a difference differ by; 1, the most there is, without any."""
    whole = float(weight @ values)
    return float(weight @ values**2) / whole if whole > _TINY else 1.0


def need_of_prompts(comparison: QualityComparison, margin: float, level: float) -> Need:
    """Times the prompts for an equal canary to pass with 90 % power.

    Looks for the smallest factor at which the bound of an estimate that is unlucky in one case of
    ten (1.28 SE above nothing) lies below the margin.
    """

    def short(factor: float) -> float:
        grown = comparison.grown(factor)
        return replace(grown, estimate=1.2816 * grown.se).upper(level) - margin

    if short(1.0) <= 0.0:
        return Need(data_factor=1.0)
    if short(LONGEST) > 0.0:
        return Need()
    return Need(data_factor=falling_root(short, 0.0, 1.0, LONGEST))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstPrompt:
    """A prompt whose canary answers are worse than stable's, as a report shows it."""

    measure: str
    id: str
    topic: str
    weight: float
    loss: float
    """Mean stable score minus mean canary score."""
    canary_score: float
    stable_score: float
    text: str
    canary_answer: str
    stable_answer: str
    canary_reason: str
    stable_reason: str


def worst_prompts(prompts: Sequence[Prompt], *, most: int = WORST) -> tuple[WorstPrompt, ...]:
    """Those that lose most, weight counted, at most ``most`` of them; equal ones by their id."""
    order = sorted(
        ((float(loss), prompt) for loss, prompt in zip(losses(prompts), prompts, strict=True)),
        key=lambda pair: (-pair[0] * pair[1].weight, pair[1].measure, pair[1].id),
    )
    return tuple(
        WorstPrompt(
            measure=prompt.measure,
            id=prompt.id,
            topic=prompt.topic,
            weight=prompt.weight,
            loss=loss,
            canary_score=float(np.mean(prompt.canary)),
            stable_score=float(np.mean(prompt.stable)),
            text=prompt.text,
            canary_answer=prompt.canary_answer,
            stable_answer=prompt.stable_answer,
            canary_reason=prompt.canary_reason,
            stable_reason=prompt.stable_reason,
        )
        for loss, prompt in order[:most]
        if loss > _TINY
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicDifference:
    """How much one topic's prompts lose."""

    measure: str
    topic: str
    prompts: int
    loss: float
    """Weighted mean of stable minus canary."""
    standard_error: float
    """NaN with a single prompt."""


def topic_differences(prompts: Sequence[Prompt]) -> tuple[TopicDifference, ...]:
    """One entry for each measure and topic, for display: topics are not tested one by one."""
    found = []
    key = lambda p: (p.measure, p.topic)  # noqa: E731 - used twice, says nothing by a name
    for (measure, topic), group in groupby(sorted(prompts, key=key), key=key):
        members = list(group)
        loss = losses(members)
        weight = np.array([p.weight for p in members])
        mean = float(weight @ loss / weight.sum())
        n = len(members)
        spread = float((weight**2 @ (loss - mean) ** 2) / weight.sum() ** 2)
        found.append(
            TopicDifference(
                measure=measure,
                topic=topic,
                prompts=n,
                loss=mean,
                standard_error=math.sqrt(spread * n / (n - 1)) if n > 1 else math.nan,
            )
        )
    return tuple(found)
