"""Checks of how an answer is given: its length and end, refusals, emptiness, repetition."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Field

from inference_analysis.prompts.answers import words
from inference_analysis.prompts.check_scores import CONFIG, Positive, Score, passed, quoted

if TYPE_CHECKING:
    from inference_analysis.prompts.answers import Answer

NGRAM = 4
_REFUSAL: Final = re.compile(
    r"\b(?:"
    r"i(?:'m| am) (?:sorry|afraid)\b.{0,60}\b(?:can(?:'t|not)|unable|not able|won't)"
    r"|i(?:'m| am) (?:unable|not able|not allowed) to\b"
    r"|i (?:can(?:'t|not)|won't|will not) (?:help|assist|provide|answer|do|comply|share|support)\b"
    r"|as an ai(?: language)? model\b"
    r"|i must (?:decline|refuse)\b"
    r")",
    re.IGNORECASE | re.DOTALL,
)
REFUSAL_WITHIN: Final = 300
"""A refusal stands at the beginning; later such words are about something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """The answer's length in words."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    type: Literal["length"] = "length"
    min_words: Annotated[int, Field(ge=0)] = 0
    max_words: Annotated[int, Field(ge=1)] | None = None
    weight: Positive = 1.0

    def score(self, answer: Answer, reference: str) -> Score:
        """1 inside the limits, else how near the limit is."""
        del reference
        length = len(words(answer.final))
        if length < self.min_words:
            return Score(value=length / self.min_words, reason=f"{length} words: too short")
        if self.max_words is not None and length > self.max_words:
            return Score(value=self.max_words / length, reason=f"{length} words: too long")
        return Score(value=1.0, reason=f"{length} words")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """Why generation ended."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    type: Literal["finish"] = "finish"
    reasons: Annotated[tuple[str, ...], Field(min_length=1)] = ("stop", "tool_calls")
    weight: Positive = 1.0

    def score(self, answer: Answer, reference: str) -> Score:
        """1 for one of the reasons."""
        del reference
        ok = answer.finish_reason in self.reasons
        return passed(ok, f"finish_reason {answer.finish_reason or 'none'}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Whether the answer refuses, in English phrases."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    type: Literal["refusal"] = "refusal"
    expected: bool = False
    weight: Positive = 1.0

    def score(self, answer: Answer, reference: str) -> Score:
        """1 if it refuses exactly when it should."""
        del reference
        phrase = refusal(answer.final)
        reason = f"refuses: {quoted(phrase)}" if phrase else "no refusal"
        return passed(bool(phrase) is self.expected, reason)


def refusal(text: str) -> str:
    """The phrase by which an answer refuses, or nothing."""
    found = _REFUSAL.search(text[:REFUSAL_WITHIN].replace("\u2019", "'"))
    return found[0] if found else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotEmpty:
    """There must be text or a tool call."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    type: Literal["notEmpty"] = "notEmpty"
    weight: Positive = 1.0

    def score(self, answer: Answer, reference: str) -> Score:
        """0 for an empty answer."""
        del reference
        return passed(not answer.empty, "empty" if answer.empty else "not empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """An answer that goes round in circles."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    type: Literal["repetition"] = "repetition"
    limit: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of repeated four-word sequences that is still fine."""
    weight: Positive = 1.0

    def score(self, answer: Answer, reference: str) -> Score:
        """1 up to the limit, then falling to 0."""
        del reference
        share = repetition(answer.final)
        value = 1.0 if share <= self.limit else (1.0 - share) / (1.0 - self.limit)
        return Score(value=value, reason=f"{share:.0%} of the four-word sequences repeat")


def repetition(text: str) -> float:
    """Share of the four-word sequences that have occurred before; 0 for short texts."""
    found = words(text)
    total = len(found) - NGRAM + 1
    if total < NGRAM:
        return 0.0
    return 1.0 - len({tuple(found[i : i + NGRAM]) for i in range(total)}) / total
