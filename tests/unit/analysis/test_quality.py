from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_1samp

from inference_analysis.observations import Prompt
from inference_analysis.quality import (
    compare_quality,
    losses,
    need_of_prompts,
    topic_differences,
    worst_prompts,
)


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


def right_or_wrong(lost: int, won: int, n: int) -> list[Prompt]:
    """``lost`` prompts that only stable gets right, ``won`` that only the canary does."""
    return [
        Prompt(
            id=f"p{i:03}", canary=(float(i >= lost),), stable=(float(not lost <= i < lost + won),)
        )
        for i in range(n)
    ]


@pytest.mark.parametrize(
    ("n", "proved"), [pytest.param(59, False, id="59"), pytest.param(60, True, id="60")]
)
def test_a_margin_of_five_points_takes_sixty_prompts_however_equal(n: int, proved: bool) -> None:
    comparison = compare_quality(right_or_wrong(0, 0, n))
    assert comparison is not None
    # The rule of three: ln(.05) / .05 = -59.9.
    assert (comparison.upper(0.05) < 0.05) is proved


def test_the_bound_of_a_few_lost_prompts_is_close_to_the_exact_one() -> None:
    # Two of 100 lost and none won is a binomial share: Clopper and Pearson 1934.
    comparison = compare_quality(right_or_wrong(2, 0, 100))
    assert comparison is not None
    exact = binomtest(2, 100).proportion_ci(0.90).high
    assert comparison.upper(0.05) == pytest.approx(exact, abs=0.008)
    assert comparison.estimate + 1.66 * comparison.se < 0.045


def test_the_score_bound_solves_tangos_equation() -> None:
    # T(theta) = (b - c - n theta) / sqrt(n (2 q + theta (1 - theta))), q the root of
    # 2 n q^2 + (-b - c + (2 n - b + c) theta) q - c theta (1 - theta) = 0: Tango 1998, equation 5.
    b, c, n = 9, 3, 100
    comparison = compare_quality(right_or_wrong(b, c, n))
    assert comparison is not None
    for theta in (0.08, 0.11, 0.15):
        linear = -b - c + (2 * n - b + c) * theta
        q = (-linear + np.sqrt(linear**2 + 8 * n * c * theta * (1 - theta))) / (4 * n)
        expected = np.sqrt(n * (2 * q + theta * (1 - theta))) / n
        assert comparison._null_se(theta) == pytest.approx(expected)


@given(
    pairs=st.lists(
        st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(1, 4)), min_size=10, max_size=60
    ),
    level=st.floats(1e-4, 0.2),
)
def test_the_upper_bound_is_never_below_the_plain_one_and_falls_with_the_level(
    pairs: list[tuple[float, float, int]], level: float
) -> None:
    data = [
        Prompt(id=str(i), canary=(c,), stable=(s,), weight=float(w))
        for i, (c, s, w) in enumerate(pairs)
    ]
    comparison = compare_quality(data)
    assert comparison is not None
    upper = comparison.upper(level)
    assert min(comparison._plain_upper(level), 1.0) - 1e-9 <= upper <= 1.0
    assert comparison.upper(level / 2) >= upper - 1e-9
    assert 0.0 < comparison.mde(level) <= 1.0


def test_a_canary_at_the_margin_seldom_passes() -> None:
    # It fails at one prompt in twenty and is equal elsewhere; t alone would pass .10 of these.
    rng = np.random.default_rng(7)
    passed = 0
    for _ in range(400):
        comparison = compare_quality(right_or_wrong(int(rng.binomial(100, 0.05)), 0, 100))
        assert comparison is not None
        passed += comparison.upper(0.05) < 0.05
    assert passed / 400 <= 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 400)


def test_the_prompts_that_are_asked_for_are_enough() -> None:
    comparison = compare_quality(right_or_wrong(2, 2, 40))
    assert comparison is not None
    need = need_of_prompts(comparison, 0.05, 0.05)
    assert need.data_factor is not None
    grown = comparison.grown(need.data_factor)
    assert replace(grown, estimate=1.2816 * grown.se).upper(0.05) == pytest.approx(0.05, abs=1e-4)


def test_the_worst_prompts_come_first_and_only_those_that_lose() -> None:
    data = [
        Prompt(id="b", canary=(0.0,), stable=(1.0,), text="?", canary_answer="no"),
        Prompt(id="a", canary=(0.5,), stable=(1.0,), weight=4.0),
        Prompt(id="c", canary=(1.0,), stable=(0.0,)),
        Prompt(id="d", canary=(1.0,), stable=(1.0,)),
        Prompt(id="e", canary=(0.0,), stable=(1.0,)),
    ]
    found = worst_prompts(data)
    assert [worst.id for worst in found] == ["a", "b", "e"]
    assert (found[1].text, found[1].canary_answer, found[1].loss) == ("?", "no", 1.0)
    assert [worst.id for worst in worst_prompts(data, most=1)] == ["a"]


def test_topics_are_listed_by_measure_with_their_own_spread() -> None:
    data = [
        Prompt(id="1", topic="math", canary=(0.0,), stable=(1.0,)),
        Prompt(id="2", topic="math", canary=(1.0,), stable=(1.0,)),
        Prompt(id="1", topic="math", canary=(0.5,), stable=(0.5,), measure="judge"),
    ]
    judged, scored = topic_differences(data)
    assert (judged.measure, judged.prompts, judged.loss) == ("judge", 1, 0.0)
    assert np.isnan(judged.standard_error)
    # Losses 1 and 0: mean .5, sd .7071, divided by the square root of 2.
    assert scored.loss == 0.5
    assert scored.standard_error == pytest.approx(0.5)
