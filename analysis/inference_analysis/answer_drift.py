"""How answers have changed in ways that no prompt asks about: worth a word, never a verdict.

A gate on one of these measures makes it one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from inference_analysis.confounders import DRIFT, MIX_LEVEL, Finding, Weight
from inference_analysis.quality import compare_quality

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference_analysis.observations import Prompt

LENGTH: Final = "length"
_WORDS: Final = {
    "empty": "are empty",
    "refusal": "refuse",
    "truncation": "end at the token limit",
}
"""Measures whose scores are shares of answers without that fault."""
_REPETITION: Final = "repetition"


def check_answers(prompts: Sequence[Prompt]) -> list[Finding]:
    """A note for each measure that differs (two-sided .01) by more than ten points.

    For the length that is a ratio of 1.22: its scores are parts of both lengths.
    """
    found = []
    for measure in (*_WORDS, _REPETITION, LENGTH):
        own = [prompt for prompt in prompts if prompt.measure == measure]
        comparison = compare_quality(own)
        if comparison is None or abs(comparison.estimate) <= DRIFT:
            continue
        p = comparison.harm_p(0.0)
        if 2.0 * min(p, 1.0 - p) <= MIX_LEVEL:
            found.append(Finding(code="answers", weight=Weight.NOTE, text=_text(measure, own)))
    return found


def _text(measure: str, prompts: Sequence[Prompt]) -> str:
    weight = np.array([p.weight for p in prompts])
    canary, stable = (
        float(weight @ [np.mean(scores) for scores in arm] / weight.sum())
        for arm in ([p.canary for p in prompts], [p.stable for p in prompts])
    )
    if measure == LENGTH:
        change = canary / stable - 1.0 if stable else np.inf
        return f"the canary's answers to the prompts differ in length by {change:+.0%}"
    if measure == _REPETITION:
        return f"repeated phrases: canary {1.0 - canary:.0%}, stable {1.0 - stable:.0%}"
    what = _WORDS[measure]
    return f"answers that {what}: canary {1.0 - canary:.0%}, stable {1.0 - stable:.0%}"
