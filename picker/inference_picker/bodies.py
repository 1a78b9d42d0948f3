"""The ``model`` of a JSON request body: reading it, and replacing just its bytes.

The body is never serialised again: order, spacing, escapes and number formats are the client's,
and signatures or prefix caches of the model server may depend on them.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from inference_picker.errors import BodyError

if TYPE_CHECKING:
    from collections.abc import Mapping

# A JSON string, or a bracket: all that is needed to follow nesting in valid JSON.
_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]', re.DOTALL)
_STRING: Final = re.compile(rb'\s*("[^"\\]*(?:\\.[^"\\]*)*")', re.DOTALL)
_COLON: Final = re.compile(rb"\s*:")

_PLAIN_KEY: Final = b'"model"'
# Each letter of the key is U+006x, and can be written in no other way than itself or this.
_ESCAPED_LETTER: Final = b"\\u006"


def content_of(body: bytes) -> dict[str, Any]:
    """The JSON object in UTF-8 that a body is. Raises BodyError for anything else."""
    try:
        found = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BodyError(f"The request body is not JSON: {_brief(error)}.") from error
    if not isinstance(found, dict):
        raise BodyError(
            f"The request body is a JSON {type(found).__name__}; an object is expected."
        )
    return found


def model_in(content: Mapping[str, Any]) -> str:
    """The top-level ``model``; of several the last, as parsers do. Raises BodyError without one."""
    model = content.get("model")
    if not isinstance(model, str) or not model:
        raise BodyError(
            'The request body has no "model"; name the model as a string.', names_no_model=True
        )
    return model


def model_of(body: bytes) -> str:
    """`model_in` of `content_of`."""
    return model_in(content_of(body))


def model_span(body: bytes) -> tuple[int, int]:
    """First and one-past-last byte of the value, quotes included, that `model_of` reads.

    Call it only on a body that `model_of` accepted.
    """
    if body.count(_PLAIN_KEY) == 1 and _ESCAPED_LETTER not in body:
        # The only spelling there is must be the key that `model_of` found.
        at = body.index(_PLAIN_KEY) + len(_PLAIN_KEY)
        if (colon := _COLON.match(body, at)) and (value := _STRING.match(body, colon.end())):
            return value.span(1)
    span: tuple[int, int] | None = None
    depth = 0
    for token in _TOKEN.finditer(body):
        first = body[token.start()]
        if first in b"{[":
            depth += 1
        elif first in b"}]":
            depth -= 1
        elif (
            depth == 1
            and (colon := _COLON.match(body, token.end()))
            and _key(token.group()) == "model"
            and (value := _STRING.match(body, colon.end()))
        ):
            span = value.span(1)
    if span is None:
        raise BodyError('The request body has no "model".', names_no_model=True)
    return span


def with_model(body: bytes, model: str) -> bytes:
    """The body with its top-level ``model`` replaced, every other byte as it was."""
    start, end = model_span(body)
    return b"".join((body[:start], encoded(model), body[end:]))


def encoded(text: str) -> bytes:
    """The text as a JSON string in UTF-8."""
    return json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _key(token: bytes) -> str:
    if b"\\" not in token:
        return token[1:-1].decode("utf-8", "replace")
    return str(json.loads(token))


def _brief(error: BaseException) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)
