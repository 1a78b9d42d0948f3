"""How often the comparison of answers is wrong, as the tables of docs/quality.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inference_analysis.observations import Prompt
from inference_analysis.quality import QualityComparison, compare_quality

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference_analysis.observations import FloatArray

    Draw = Callable[[np.random.Generator, int], tuple[FloatArray, FloatArray]]

RUNS = 2000
MARGIN = 0.05
LEVEL = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Versions and how many prompts they get."""

    name: str
    prompts: int
    draw: Draw
    """Scores of canary and stable, (N, R) each."""


def one_sided(share: float, won: float = 0.0) -> Draw:
    """Right answers but for a share that only stable gets right, and one that only the canary."""

    def draw(rng: np.random.Generator, n: int) -> tuple[FloatArray, FloatArray]:
        point = rng.random(n)
        canary, stable = np.ones((n, 1)), np.ones((n, 1))
        canary[point < share] = 0.0
        stable[(point >= share) & (point < share + won)] = 0.0
        return canary, stable

    return draw


def sampled(loss: float, answers: int, *, own: float = 0.0) -> Draw:
    """Right with a chance that differs by prompt (mean .74), and by ``own`` between versions."""

    def draw(rng: np.random.Generator, n: int) -> tuple[FloatArray, FloatArray]:
        base = rng.beta(3.0, 1.05, n)
        chances = [np.clip(base + rng.normal(0.0, own, n) - less, 0.0, 1.0) for less in (loss, 0.0)]
        canary, stable = (
            (rng.random((n, answers)) < chance[:, None]).astype(np.float64) for chance in chances
        )
        return canary, stable

    return draw


def _scenarios() -> tuple[Scenario, ...]:
    found = [
        *(
            Scenario(name="loses 1 prompt in 20, wins none", prompts=n, draw=one_sided(0.05))
            for n in (40, 72, 100, 300)
        ),
        *(
            Scenario(name="loses 6 %, wins 1 %", prompts=n, draw=one_sided(0.06, 0.01))
            for n in (40, 72, 100, 300)
        ),
        *(
            Scenario(name="equal: loses 2 %, wins 2 %", prompts=n, draw=one_sided(0.02, 0.02))
            for n in (72, 100, 300)
        ),
    ]
    for answers, counts in ((1, (300, 1000)), (5, (72, 200))):
        found += [
            Scenario(name=f"equal, {answers} sampled answers", prompts=n, draw=sampled(0, answers))
            for n in counts
        ]
    found += [
        Scenario(
            name="equal, 5 answers, each better at some prompts (sd .1)",
            prompts=200,
            draw=sampled(0, 5, own=0.1),
        ),
        Scenario(name="5 points worse, 5 answers", prompts=200, draw=sampled(0.05, 5)),
        Scenario(name="8 points worse, 5 answers", prompts=300, draw=sampled(0.08, 5)),
        Scenario(name="30 % of the answers wrong", prompts=72, draw=one_sided(0.3)),
    ]
    return tuple(found)


def _compared(scenario: Scenario, rng: np.random.Generator) -> QualityComparison:
    canary, stable = scenario.draw(rng, scenario.prompts)
    found = compare_quality(
        [
            Prompt(id=str(i), canary=tuple(canary[i]), stable=tuple(stable[i]))
            for i in range(scenario.prompts)
        ]
    )
    assert found is not None
    return found


def main() -> None:
    """Print one row for each scenario."""
    print(
        f"One look at level {LEVEL:g}, margin {100 * MARGIN:g} points, {RUNS} runs a row (s.e. at "
        ".05: .005).\n"
    )
    print("| scenario | prompts | PASS | PASS by t alone | harm shown |")
    print("|---|---|---|---|---|")
    for number, scenario in enumerate(_scenarios()):
        rng = np.random.default_rng((20261121, number))
        runs = [_compared(scenario, rng) for _ in range(RUNS)]
        passed = np.mean([run.upper(LEVEL) < MARGIN for run in runs])
        plain = np.mean([run._plain_upper(LEVEL) < MARGIN for run in runs])
        harm = np.mean([run.harm_p(0.0) <= LEVEL for run in runs])
        print(f"| {scenario.name} | {scenario.prompts} | {passed:.3f} | {plain:.3f} | {harm:.3f} |")


if __name__ == "__main__":
    main()
