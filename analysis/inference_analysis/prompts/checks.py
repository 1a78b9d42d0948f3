"""Checks of one answer: each gives a score in [0, 1] and says why.

They are pure. Their fields are the keys of a prompt set's ``checks`` (docs/quality.md), which
pydantic reads straight into these classes.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from inference_analysis.prompts.answers import words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference_analysis.prompts.answers import Answer

SHOWN = 60
"""Characters of a text that a reason quotes."""
NGRAM = 4
_CONFIG: Final = ConfigDict(extra="forbid", alias_generator=to_camel, validate_by_name=False)
_NUMBER: Final = re.compile(
    r"(?:(?<![\w)])[-+])?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?"
)
_FENCE: Final = re.compile(r"```(?:json|JSON)?\s*\n(.*?)```", re.DOTALL)
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

Method = Literal["words", "characters", "contained"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How good an answer is by one check."""

    value: float
    """0 to 1."""
    reason: str


def quoted(text: str) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text.split())
    return repr(line if len(line) <= SHOWN else line[: SHOWN - 1] + "…")


def _passed(ok: bool, reason: str) -> Score:  # noqa: FBT001 - what was found, then its words
    return Score(value=float(ok), reason=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Regex:
    """A pattern that must (or must not) be found."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    type: Literal["regex"] = "regex"
    pattern: str
    ignore_case: bool = True
    absent: bool = False
    """The pattern must not be found."""
    weight: Positive = 1.0

    @property
    def compiled(self) -> re.Pattern[str]:
        """Raises re.error for what is no pattern."""
        return re.compile(self.pattern, re.IGNORECASE if self.ignore_case else re.NOFLAG)

    def score(self, answer: Answer, reference: str) -> Score:
        """1 if the answer is as wanted."""
        del reference
        found = self.compiled.search(answer.final)
        if found is None:
            return _passed(self.absent, f"no match of {self.pattern!r} in {quoted(answer.final)}")
        return _passed(not self.absent, f"{self.pattern!r} matches {quoted(found[0])}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """The whole answer must be one of these texts, apart from case, spaces and end marks."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
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
        return _passed(ok, f"{quoted(answer.final)} {'is' if ok else 'is none'} of the answers")


def normalised(text: str) -> str:
    """Lower case, single spaces, without quotes around it and marks at its end."""
    return " ".join(text.lower().split()).strip(" \t\"'`*.!").strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Numeric:
    """The last number of the answer (or the first) must be this one."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
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
            return _passed(False, f"no number in {quoted(answer.final)}")  # noqa: FBT003 - see above
        number = found[-1] if self.take == "last" else found[0]
        # A float's own rounding is no difference.
        allowed = max(self.tolerance, self.relative * abs(self.value), 1e-12 * abs(self.value))
        ok = abs(number - self.value) <= allowed
        return _passed(ok, f"{self.take} number is {number:g}, wanted {self.value:g}")


def numbers(text: str) -> list[float]:
    """All numbers of a text, thousands in commas and the minus of typesetters included."""
    found = (float(n.replace(",", "")) for n in _NUMBER.findall(text.replace("\u2212", "-")))
    return [number for number in found if math.isfinite(number)]


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonSchema:
    """The answer must be JSON that a schema accepts."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    type: Literal["jsonSchema"] = "jsonSchema"
    json_schema: Annotated[dict[str, Any], Field(alias="schema")]
    bare: bool = False
    """Nothing around the JSON; else it may stand in a fence of backticks."""
    weight: Positive = 1.0

    def score(self, answer: Answer, reference: str) -> Score:
        """1 for JSON that the schema accepts."""
        del reference
        text = answer.final
        if not self.bare:
            fenced = _FENCE.search(text)
            text = fenced[1] if fenced else text
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            return _passed(False, f"no JSON: {error} in {quoted(text)}")  # noqa: FBT003 - see above
        from jsonschema import Draft202012Validator  # noqa: PLC0415 - takes a while
        from referencing import Registry  # noqa: PLC0415
        from referencing.exceptions import Unresolvable  # noqa: PLC0415

        # Its own registry: a $ref never makes the worker open an address.
        validator = Draft202012Validator(self.json_schema, registry=Registry())
        try:
            problem = next(iter(validator.iter_errors(value)), None)
        except Unresolvable as error:
            return _passed(False, f"the schema refers to nothing: {error}")  # noqa: FBT003 - see above
        if problem is None:
            return _passed(True, "JSON as the schema wants it")  # noqa: FBT003 - see above
        return _passed(False, f"{problem.json_path}: {problem.message[:200]}")  # noqa: FBT003 - see above


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """The model must call a tool with these arguments."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    type: Literal["toolCall"] = "toolCall"
    name: Annotated[str, Field(min_length=1)]
    arguments: dict[str, Any] = field(default_factory=dict)
    """Arguments that matter; strings are compared apart from case and spaces."""
    only: bool = False
    """No other arguments."""
    weight: Positive = 1.0

    def score(self, answer: Answer, reference: str) -> Score:
        """0 without the call, else one half and the share of right arguments' half."""
        del reference
        named = [call for call in answer.tool_calls if call.name == self.name]
        if not named:
            others = ", ".join(call.name for call in answer.tool_calls) or "no tool"
            return Score(value=0.0, reason=f"{others} called, wanted {self.name}")
        best = max((self._arguments(call.arguments) for call in named), key=lambda s: s.value)
        return Score(value=0.5 + 0.5 * best.value, reason=f"{self.name}: {best.reason}")

    def _arguments(self, text: str) -> Score:
        try:
            found = json.loads(text or "{}")
        except (ValueError, RecursionError) as error:
            return Score(value=0.0, reason=f"arguments are no JSON: {error}")
        if not isinstance(found, dict):
            return Score(value=0.0, reason=f"arguments are no object: {quoted(text)}")
        wrong = [
            f"{name} is {found.get(name)!r}, wanted {value!r}"
            for name, value in self.arguments.items()
            if not _same(found.get(name), value)
        ]
        total = len(self.arguments)
        extra = sorted(found.keys() - self.arguments.keys()) if self.only else []
        wrong += [f"{name} is not wanted" for name in extra]
        total += len(extra)
        if not wrong:
            return Score(value=1.0, reason="arguments are right")
        return Score(value=1.0 - len(wrong) / total, reason="; ".join(wrong)[:300])


def _same(found: object, wanted: object) -> bool:
    if isinstance(found, str) and isinstance(wanted, str):
        return normalised(found) == normalised(wanted)
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    return found == wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Similarity:
    """Likeness to the prompt's reference, scaled between two points."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """The answer's length in words."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
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

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    type: Literal["finish"] = "finish"
    reasons: Annotated[tuple[str, ...], Field(min_length=1)] = ("stop", "tool_calls")
    weight: Positive = 1.0

    def score(self, answer: Answer, reference: str) -> Score:
        """1 for one of the reasons."""
        del reference
        ok = answer.finish_reason in self.reasons
        return _passed(ok, f"finish_reason {answer.finish_reason or 'none'}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Whether the answer refuses, in English phrases."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    type: Literal["refusal"] = "refusal"
    expected: bool = False
    weight: Positive = 1.0

    def score(self, answer: Answer, reference: str) -> Score:
        """1 if it refuses exactly when it should."""
        del reference
        phrase = refusal(answer.final)
        reason = f"refuses: {quoted(phrase)}" if phrase else "no refusal"
        return _passed(bool(phrase) is self.expected, reason)


def refusal(text: str) -> str:
    """The phrase by which an answer refuses, or nothing."""
    found = _REFUSAL.search(text[:REFUSAL_WITHIN].replace("\u2019", "'"))
    return found[0] if found else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotEmpty:
    """There must be text or a tool call."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    type: Literal["notEmpty"] = "notEmpty"
    weight: Positive = 1.0

    def score(self, answer: Answer, reference: str) -> Score:
        """0 for an empty answer."""
        del reference
        return _passed(not answer.empty, "empty" if answer.empty else "not empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """An answer that goes round in circles."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
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


Check = Annotated[
    Regex
    | Exact
    | Numeric
    | JsonSchema
    | ToolUse
    | Similarity
    | Length
    | Finish
    | Refusal
    | NotEmpty
    | Repetition,
    Field(discriminator="type"),
]


def checked(answer: Answer, checks: Sequence[Check], reference: str = "") -> Score:
    """The weighted mean of all checks; the reason names those that did not give 1.

    An answer that is missing scores 0. At least one check is needed.
    """
    if answer.problem:
        return Score(value=0.0, reason=answer.problem)
    scores = [check.score(answer, reference) for check in checks]
    total = sum(check.weight for check in checks)
    value = sum(c.weight * s.value for c, s in zip(checks, scores, strict=True)) / total
    faults = [
        f"{check.type}: {score.reason}"
        for check, score in zip(checks, scores, strict=True)
        if score.value < 1.0
    ]
    reason = "; ".join(faults) or "; ".join(score.reason for score in scores)
    # The sum's rounding must not leave [0, 1].
    return Score(value=min(max(value, 0.0), 1.0), reason=reason)
