"""Checks of an answer's form: JSON that a schema accepts, and calls of tools."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

from pydantic import ConfigDict, Field

from inference_analysis.prompts.check_scores import (
    CONFIG,
    Positive,
    Score,
    normalised,
    passed,
    quoted,
)

if TYPE_CHECKING:
    from inference_analysis.prompts.answers import Answer

_FENCE: Final = re.compile(r"```(?:json|JSON)?\s*\n(.*?)```", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonSchema:
    """The answer must be JSON that a schema accepts."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
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
            return passed(False, f"no JSON: {error} in {quoted(text)}")  # noqa: FBT003 - see above
        from referencing import Registry  # noqa: PLC0415
        from referencing.exceptions import Unresolvable  # noqa: PLC0415

        from inference_analysis.prompts.bounded_schemas import BoundedValidator  # noqa: PLC0415

        # Its own registry: a $ref never makes the worker open an address.
        validator = BoundedValidator(self.json_schema, registry=Registry())
        try:
            problem = next(iter(validator.iter_errors(value)), None)
        except Unresolvable as error:
            return passed(False, f"the schema refers to nothing: {error}")  # noqa: FBT003 - see above
        if problem is None:
            return passed(True, "JSON as the schema wants it")  # noqa: FBT003 - see above
        return passed(False, f"{problem.json_path}: {problem.message[:200]}")  # noqa: FBT003 - see above


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """The model must call a tool with these arguments."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
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
