"""What is measured on a pair of answers besides the checks: drift that no prompt asks about.

Each gives a score for the canary's and for stable's answer, 1 being fine; how much they differ is
what counts. docs/quality.md lists them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from inference_analysis.prompts.answers import words
from inference_analysis.prompts.manner_checks import refusal, repetition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from inference_analysis.prompts.answers import Answer

LENGTH: Final = "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Scores of both versions' answers to one prompt."""

    canary: float
    stable: float


DETECTORS: Final[Mapping[str, Callable[[Answer], float]]] = {
    "empty": lambda answer: float(not answer.empty),
    "refusal": lambda answer: float(not refusal(answer.final)),
    "repetition": lambda answer: 1.0 - repetition(answer.final),
    "truncation": lambda answer: float(answer.finish_reason != "length"),
}


def drift(canary: Answer, stable: Answer) -> dict[str, Pair]:
    """All of them; nothing where a version gave no answer, which the checks count."""
    if canary.problem or stable.problem:
        return {}
    found = {
        name: Pair(canary=detect(canary), stable=detect(stable))
        for name, detect in DETECTORS.items()
    }
    found[LENGTH] = length(canary, stable)
    return found


def length(canary: Answer, stable: Answer) -> Pair:
    """Each answer's part of both lengths in words: one half each when they are equally long."""
    mine, other = len(words(canary.final)), len(words(stable.final))
    share = mine / (mine + other) if mine + other else 0.5
    return Pair(canary=share, stable=1.0 - share)
