"""What a model answered."""

from __future__ import annotations

import re
from dataclasses import dataclass

_REASONING_END = "</think>"
_REASONING_START = "<think>"
_WORDS = re.compile(r"\w+|[^\w\s]")
LONG_WORD = 20
"""Longer "words" on average than this: a script that does not put spaces between words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One call that the model asks for."""

    name: str
    arguments: str
    """JSON text, as the model wrote it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One generated answer, or why there is none."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str = ""
    tokens: int | None = None
    """Generated tokens, where the server told."""
    problem: str = ""
    """Why the version gave no answer (an error status, no end in time); it then scores 0."""

    @property
    def final(self) -> str:
        """The text without a reasoning model's thoughts, stripped.

        Some templates open ``<think>`` in the prompt, so that only its end is in the answer.
        Thoughts that were cut off leave nothing.
        """
        _, end, rest = self.text.rpartition(_REASONING_END)
        if end:
            return rest.strip()
        return self.text.partition(_REASONING_START)[0].strip()

    @property
    def empty(self) -> bool:
        """Neither text nor a tool call."""
        return not self.final and not self.tool_calls


def words(text: str) -> list[str]:
    """Words and marks; characters in a script without spaces."""
    found = _WORDS.findall(text)
    if found and len(text) / len(found) > LONG_WORD:
        return [character for character in text if not character.isspace()]
    return found
