"""An OpenAI-compatible server's answer, whole or as server-sent events, put together. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from inference_analysis.prompts.answers import Answer, ToolCall

_DONE: Final = b"[DONE]"


class AnswerError(ValueError):
    """A body that is no chat completion."""


@dataclass(slots=True, kw_only=True)
class Assembly:
    """Collects what belongs to one answer."""

    text: list[str] = field(default_factory=list)
    calls: dict[int, tuple[list[str], list[str]]] = field(default_factory=dict)
    """Index → pieces of the name and of the arguments."""
    finish_reason: str = ""
    tokens: int | None = None
    version: str = ""
    """The server's ``system_fingerprint``."""
    started: bool = False
    """Whether any text or tool call has come."""
    ended: bool = False
    """Whether the stream said so; without it the answer was cut."""

    def event(self, line: bytes) -> None:
        """Take one line of an event stream; all but ``data:`` lines are ignored.

        Raises AnswerError for data that is no chunk, or that reports an error.
        """
        if not line.startswith(b"data:"):
            return
        data = line[5:].strip()
        if data == _DONE:
            self.ended = True
            return
        chunk = _object(data)
        self._common(chunk)
        for choice in chunk.get("choices") or []:
            self._choice(choice, choice.get("delta") or {})

    def whole(self, body: bytes) -> None:
        """Take the body of an answer without streaming.

        Raises AnswerError for a body that is no chat completion.
        """
        document = _object(body)
        self._common(document)
        choices = document.get("choices")
        if not choices:
            raise AnswerError(f"no choices in {body[:200].decode(errors='replace')!r}")
        self._choice(choices[0], choices[0].get("message") or {})
        self.ended = True

    def answer(self) -> Answer:
        """What has been collected."""
        return Answer(
            text="".join(self.text),
            tool_calls=tuple(
                ToolCall(name="".join(name), arguments="".join(arguments))
                for _, (name, arguments) in sorted(self.calls.items())
            ),
            finish_reason=self.finish_reason,
            tokens=self.tokens,
        )

    def _common(self, document: dict[str, Any]) -> None:
        error = document.get("error")
        if error:
            message = error.get("message") if isinstance(error, dict) else error
            raise AnswerError(f"error instead of an answer: {message}")
        self.version = document.get("system_fingerprint") or self.version
        usage = document.get("usage")
        if isinstance(usage, dict) and isinstance(usage.get("completion_tokens"), int):
            self.tokens = usage["completion_tokens"]

    def _choice(self, choice: dict[str, Any], part: dict[str, Any]) -> None:
        if choice.get("index", 0) != 0:
            return
        content = part.get("content")
        if content:
            self.text.append(content)
        for position, call in enumerate(part.get("tool_calls") or []):
            name, arguments = self.calls.setdefault(call.get("index", position), ([], []))
            function = call.get("function") or {}
            name.append(function.get("name") or "")
            arguments.append(function.get("arguments") or "")
        self.started = self.started or bool(self.text or self.calls)
        self.finish_reason = choice.get("finish_reason") or self.finish_reason


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise AnswerError(f"no JSON: {data[:200].decode(errors='replace')!r}") from error
    if not isinstance(value, dict):
        raise AnswerError(f"no object: {data[:200].decode(errors='replace')!r}")
    return value
