"""All checks of one answer together: which kinds there are, and what they come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from inference_analysis.prompts.check_scores import Score
from inference_analysis.prompts.manner_checks import Finish, Length, NotEmpty, Refusal, Repetition
from inference_analysis.prompts.structure_checks import JsonSchema, ToolUse
from inference_analysis.prompts.text_checks import Exact, Numeric, Regex, Similarity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference_analysis.prompts.answers import Answer

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
