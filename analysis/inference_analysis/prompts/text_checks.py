"""Checks of what an answer says: a pattern, a text, a number, a likeness.

They are pure. Their fields are the keys of a prompt set's ``checks`` (docs/quality.md), which
pydantic reads straight into these classes.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Field

from inference_analysis.prompts.check_scores import (
    CONFIG,
    NonNegative,
    Positive,
    Score,
    Share,
    normalised,
    passed,
    quoted,
)
from inference_analysis.prompts.patterns import first_match, problem_of

if TYPE_CHECKING:
    from inference_analysis.prompts.answers import Answer

_NUMBER: Final = re.compile(
    r"(?:(?<![\w)])[-+])?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?"
)
Method = Literal["words", "characters", "contained"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Regex:
    """A pattern that must (or must not) be found."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    type: Literal["regex"] = "regex"
    pattern: str
    ignore_case: bool = True
    absent: bool = False
    """The pattern must not be found."""
    weight: Positive = 1.0

    @property
    def problem(self) -> str:
        """What is wrong with the pattern, or nothing."""
        return problem_of(self.pattern)

    def score(self, answer: Answer, reference: str) -> Score:
        """1 if the answer is as wanted. Raises InputError for a pattern that takes for ever."""
        del reference
        found = first_match(self.pattern, answer.final, ignore_case=self.ignore_case)
        if found is None:
            return passed(self.absent, f"no match of {self.pattern!r} in {quoted(answer.final)}")
        return passed(not self.absent, f"{self.pattern!r} matches {quoted(found)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """The whole answer must be one of these texts, apart from case, spaces and end marks."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    type: Literal["exact"] = "exact"
    values: Annotated[tuple[str, ...], Field(min_length=1)]
    strict: bool = False
    """Case and marks count; only surrounding space does not."""
    weight: Positive = 1.0

    def score(self, answer: Answer, reference: str) -> Score:
        """1 for one of the texts."""
        del reference
        plain = (lambda text: text.strip()) if self.strict else normalised
        ok = plain(answer.final) in {plain(value) for value in self.values}
        return passed(ok, f"{quoted(answer.final)} {'is' if ok else 'is none'} of the answers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Numeric:
    """The last number of the answer (or the first) must be this one."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    type: Literal["numeric"] = "numeric"
    value: Annotated[float, Field(allow_inf_nan=False)]
    tolerance: NonNegative = 0.0
    """Absolute."""
    relative: NonNegative = 0.0
    """Share of the value; the larger of both tolerances counts."""
    take: Literal["last", "first"] = "last"
    weight: Positive = 1.0

    def score(self, answer: Answer, reference: str) -> Score:
        """1 if the number is within the tolerance."""
        del reference
        found = numbers(answer.final)
        if not found:
            return passed(False, f"no number in {quoted(answer.final)}")  # noqa: FBT003 - see above
        number = found[-1] if self.take == "last" else found[0]
        # A float's own rounding is no difference.
        allowed = max(self.tolerance, self.relative * abs(self.value), 1e-12 * abs(self.value))
        ok = abs(number - self.value) <= allowed
        return passed(ok, f"{self.take} number is {number:g}, wanted {self.value:g}")


def numbers(text: str) -> list[float]:
    """All numbers of a text, thousands in commas and the minus of typesetters included."""
    found = (float(n.replace(",", "")) for n in _NUMBER.findall(text.replace("\u2212", "-")))
    return [number for number in found if math.isfinite(number)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Similarity:
    """Likeness to the prompt's reference, scaled between two points."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    type: Literal["similarity"] = "similarity"
    method: Method = "words"
    low: Share = 0.0
    """This likeness, or less, scores 0..."""
    high: Share = 1.0
    """...and this, or more, 1."""
    weight: Positive = 1.0

    def score(self, answer: Answer, reference: str) -> Score:
        """0 to 1."""
        likeness = similarity(answer.final, reference, method=self.method)
        span = self.high - self.low
        value = (likeness - self.low) / span if span > 0 else float(likeness >= self.high)
        return Score(
            value=min(max(value, 0.0), 1.0), reason=f"likeness {likeness:.2f} to the reference"
        )


def similarity(one: str, other: str, *, method: Method = "words") -> float:
    """Likeness of two texts in [0, 1], apart from case and marks; symmetric, 1 for equal texts.

    By rapidfuzz: ``characters`` is ratio, ``words`` token_sort_ratio (their order does not count),
    ``contained`` token_set_ratio (1 as soon as one has all the words of the other).
    """
    from rapidfuzz import fuzz, utils  # noqa: PLC0415 - takes a while

    if one == other:
        return 1.0
    first, second = utils.default_process(one), utils.default_process(other)
    ratio = {
        "characters": fuzz.ratio,
        "words": fuzz.token_sort_ratio,
        "contained": fuzz.token_set_ratio,
    }[method]
    return float(ratio(first, second)) / 100.0
