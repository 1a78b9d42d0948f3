r"""Patterns that users write, searched for a bounded time.

Python's own ``re`` backtracks without end on patterns such as ``(\w+\s?)*$``; one of these in a
prompt set would hang the worker. ``regex`` understands the same patterns and takes a time limit, in
seconds of the process' CPU, so a busy machine does not cut a good pattern short.
"""

from __future__ import annotations

from typing import Final

from inference_analysis.errors import InputError
from inference_analysis.prompts.check_scores import quoted

LIMIT_S: Final = 2.0


def first_match(pattern: str, text: str, *, ignore_case: bool = False) -> str | None:
    """The first place that the pattern matches, or None. Raises InputError after ``LIMIT_S``."""
    import regex  # type: ignore[import-untyped]  # noqa: PLC0415 - takes a while

    flags = regex.IGNORECASE if ignore_case else 0
    try:
        found = regex.search(pattern, text, flags=flags, timeout=LIMIT_S)
    except TimeoutError:
        raise InputError(
            f"pattern {pattern!r}: still searching {quoted(text)} after {LIMIT_S:g} s, because it "
            "backtracks. Write it without a repeat inside a repeat, such as (a+)+"
        ) from None
    return None if found is None else str(found[0])


def problem_of(pattern: str) -> str:
    """Why this is no pattern, or nothing."""
    import regex  # noqa: PLC0415 - takes a while

    try:
        regex.compile(pattern)
    except regex.error as error:
        return f"{error} in {pattern!r}"
    return ""
