"""What the simulated model says: text that names version and adapter, one word per token.

Questions of the answer book (those of the analysis' example prompts) get the book's answer.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_SENTENCES = (
    "The Forbidden City is the place to start, go early to avoid the crowds.",
    "Book your tickets a few days in advance, above all in high season.",
    "The Temple of Heaven is beautiful in the morning, when people practise tai chi.",
    "For a quiet afternoon walk along the lakes of Houhai and through the old lanes.",
    "The Great Wall at Mutianyu is about ninety minutes by car and well worth a day.",
    "The Summer Palace is best reached by underground and seen from a boat.",
    "In the evening try the night market, and finish with a bowl of noodles.",
    "Enjoy your trip, and ask me again whenever you like!",
)
_WORSE = ("I do not know.", "Perhaps, perhaps not.", "It depends.")
_SUM = re.compile(rb"(\d{1,9})\s*\+\s*(\d{1,9})")


def compose(
    *, version: str, adapter: str | None, prompt: bytes, mean_tokens: int, worse: bool
) -> list[str]:
    """The whole answer as tokens; joined they are the text. At least one token.

    The same prompt gives the same answer on every replica of a version. Its length varies
    with the prompt, by a quarter of `mean_tokens` to either side. A sum in the prompt
    ("what is 17 + 25?") is answered, by a worse model with a wrong number, so that answers can
    be graded.
    """
    digest = zlib.crc32(prompt)
    name = version if adapter is None else f"{adapter} on {version}"
    words = ["I", "am", f"{name}."]
    question = _SUM.search(prompt)
    if question:
        total = int(question[1]) + int(question[2]) + (1 + digest % 9 if worse else 0)
        words += ["The", "answer", "is", f"{total}."]
    sentences = _WORSE if worse else _SENTENCES
    spread = max(1, mean_tokens // 2)
    length = max(1, mean_tokens - spread // 2 + digest % spread)
    position = digest
    while len(words) < length:
        words += sentences[position % len(sentences)].split()
        position += 1
    words = words[:length]
    return [words[0], *(f" {word}" for word in words[1:])]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call of one of the request's tools."""

    name: str
    arguments: str
    """JSON."""


def known(question: str, *, worse: bool) -> str | ToolCall | None:
    """The book's answer; a worse model says that it does not know. None: not in the book."""
    entry = _book().get(question)
    if entry is None:
        return None
    if worse:
        return " ".join(_WORSE)
    if isinstance(entry, str):
        return entry
    return ToolCall(name=entry["tool"], arguments=json.dumps(entry["arguments"]))


def pieces(text: str) -> list[str]:
    """Text as tokens, about a word each, joined they are the text. At least one."""
    return re.findall(r"\s*\S+|\s+$", text) or [text]


def is_wrong(prompt: bytes, share: float) -> bool:
    """Whether the prompt is one of those that a model answers wrongly: always the same ones."""
    return zlib.crc32(prompt) < share * 2**32


@cache
def _book() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(__file__).with_name("answer_book.json").read_bytes())
    return found


def stretched(tokens: list[str], length: int) -> list[str]:
    """Exactly `length` tokens: cut, or repeated as a model does when its end token is ignored."""
    while len(tokens) < length:
        tokens = [*tokens, *(token if token[0] == " " else f" {token}" for token in tokens)]
    return tokens[:length]
