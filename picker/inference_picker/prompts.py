"""What the scheduler reads from a request's body: its length, and the hashes of its blocks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BLOCK_BYTES: Final = 256
"""Bytes in a block: about 64 tokens, the smallest block of llm-d-router."""
BYTES_PER_TOKEN: Final = 4.0
"""Until the model's own usage figures are known; the usual figure for English text."""
MAX_BLOCKS: Final = 2048
"""131,072 tokens, as far as llm-d-router matches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt without its text."""

    size: int = 0
    """Bytes of UTF-8."""
    max_output_tokens: int | None = None
    """The client's limit, where it set one."""
    blocks: tuple[int, ...] = ()
    """One hash for each full block, chained with all blocks before it and with the model: the
    same text under another adapter has other KV content. Good within this process only."""


def read_prompt(document: Mapping[str, Any] | None, target: str) -> Prompt:
    """The prompt of an OpenAI completion, chat completion, response or embedding request.

    Whatever else the body is gives a prompt of its own bytes: load still counts by size.
    """
    if not document:
        return Prompt()
    text = b"\0".join(_pieces(document))
    limits = (document.get(key) for key in _LIMITS)
    limit = next((each for each in limits if isinstance(each, int) and each > 0), None)
    return Prompt(
        size=len(text),
        max_output_tokens=limit,
        blocks=block_hashes(text, target),
    )


def block_hashes(text: bytes, target: str) -> tuple[int, ...]:
    """Chained hashes of the full blocks of a text."""
    parent = hash(target)
    hashes = []
    end = min(len(text), MAX_BLOCKS * BLOCK_BYTES) - BLOCK_BYTES
    for start in range(0, end + 1, BLOCK_BYTES):
        parent = hash((parent, text[start : start + BLOCK_BYTES]))
        hashes.append(parent)
    return tuple(hashes)


_LIMITS: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens")


def _pieces(document: Mapping[str, Any]) -> Iterator[bytes]:
    """The parts of the prompt in the order in which chat templates use them."""
    if tools := document.get("tools"):
        yield _flat(tools)
    for key in ("instructions", "prompt", "input"):
        if (value := document.get(key)) is not None:
            yield _flat(value)
    messages = document.get("messages")
    if not isinstance(messages, list):
        if messages is not None:
            yield _flat(messages)
        return
    for message in messages:
        if isinstance(message, dict) and isinstance(message.get("content"), str):
            yield str(message.get("role")).encode("utf-8", "replace")
            yield message["content"].encode("utf-8", "replace")
        else:
            yield _flat(message)


def _flat(value: object) -> bytes:
    """A JSON value as bytes; text as it is."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    return json.dumps(value, separators=(",", ":")).encode()
