from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from inference_analysis.observations import Prompt
from inference_analysis.quality import compare_quality, losses


def prompts(
    seed: int, n: int = 40, *, topics: int = 0, weights: bool = False, topic_sd: float = 0.0
) -> list[Prompt]:
    rng = np.random.default_rng(seed)
    by_topic = topic_sd * rng.standard_normal(max(topics, 1))
    return [
        Prompt(
            id=f"p{i}",
            canary=tuple(np.clip(0.6 - by_topic[i % max(topics, 1)] + 0.1 * rng.random(3), 0, 1)),
            stable=tuple(0.6 + 0.1 * rng.random(3)),
            topic=f"t{i % topics}" if topics else "",
            weight=float(rng.integers(1, 4)) if weights else 1.0,
        )
        for i in range(n)
    ]


def test_equal_weights_without_topics_are_scipys_paired_t() -> None:
    data = prompts(1)
    comparison = compare_quality(data)
    assert comparison is not None
    for margin in (0.0, 0.02):
        expected = ttest_1samp(losses(data), margin, alternative="greater")
        assert comparison.harm_p(margin) == pytest.approx(expected.pvalue)
    assert comparison.unit == "prompt"
    assert comparison.n_canary == 40


def test_repeated_answers_do_not_count_as_more_prompts() -> None:
    once = [Prompt(id=p.id, canary=p.canary, stable=p.stable) for p in prompts(2)]
    fivefold = [Prompt(id=p.id, canary=5 * p.canary, stable=5 * p.stable) for p in once]
    first, second = compare_quality(once), compare_quality(fivefold)
    assert first is not None
    assert second is not None
    assert second.se == pytest.approx(first.se)


def test_weights_multiply_a_prompt() -> None:
    data = prompts(3, weights=True)
    comparison = compare_quality(data)
    assert comparison is not None
    weight = np.array([p.weight for p in data])
    assert comparison.estimate == pytest.approx(np.average(losses(data), weights=weight))


def test_prompts_of_one_topic_that_move_together_count_as_one() -> None:
    data = prompts(4, 80, topics=8, topic_sd=0.1)
    plain = compare_quality([Prompt(id=p.id, canary=p.canary, stable=p.stable) for p in data])
    clustered = compare_quality(data)
    assert plain is not None
    assert clustered is not None
    assert clustered.df == 7
    # All ten prompts of a topic share its shift: the design effect is close to 10.
    assert (clustered.se / plain.se) ** 2 == pytest.approx(10.0, rel=0.2)
    assert "clustered" in clustered.method


def test_a_handful_of_prompts_gives_no_comparison() -> None:
    assert compare_quality(prompts(5, 9)) is None
