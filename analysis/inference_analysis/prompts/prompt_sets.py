"""A prompt set: a JSONL file whose first line says what it is and whose others are prompts."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from inference_analysis.errors import InputError
from inference_analysis.prompts.answers import Answer
from inference_analysis.prompts.check_scores import Positive
from inference_analysis.prompts.checks import Check
from inference_analysis.prompts.structure_checks import JsonSchema, ToolUse
from inference_analysis.prompts.text_checks import Exact, Numeric, Regex, Similarity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SCHEMA: Final = "inference-rollouts.io/prompt-set/v1"
EXAMPLE: Final = "example"
"""The name of the set that is shipped."""
PASS_LEVEL: Final = 0.04
"""Of the first look at a plan's end: .8 of .05."""
NEEDED: Final = 65
"""Prompts without which the default margin of 5 points can't be shown: -ln(PASS_LEVEL) / .05."""
_OURS: Final = frozenset({"model", "messages", "tools", "stream", "stream_options", "n", "user"})
"""Keys of a request that the prober sets itself."""


class _Line(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=False
    )


class _Header(_Line):
    schema_: Annotated[Literal["inference-rollouts.io/prompt-set/v1"], Field(alias="schema")]
    name: Annotated[str, Field(min_length=1)]
    version: Annotated[str, Field(min_length=1)]
    description: str = ""
    parameters: dict[str, Any] = {}


class _Prompt(_Line):
    id: Annotated[str, Field(min_length=1)]
    topic: str = ""
    weight: Positive = 1.0
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    checks: list[Check] = []
    reference: str = ""
    parameters: dict[str, Any] = {}
    tools: list[dict[str, Any]] = []


_L = TypeVar("_L", bound=_Line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One prompt and how its answers are scored."""

    id: str
    messages: tuple[Mapping[str, Any], ...]
    topic: str = ""
    weight: float = 1.0
    checks: tuple[Check, ...] = ()
    reference: str = ""
    parameters: Mapping[str, Any]
    """Of the request: the set's, with the prompt's own on top."""
    tools: tuple[Mapping[str, Any], ...] = ()

    @property
    def text(self) -> str:
        """The last message, which is what a report shows."""
        content = self.messages[-1].get("content")
        if isinstance(content, str):
            return content
        return json.dumps(content, ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSet:
    """All prompts of a file."""

    name: str
    version: str
    digest: str
    """SHA-256 of the file, in hex: what makes two runs comparable."""
    questions: tuple[Question, ...]
    remarks: tuple[str, ...] = ()
    """What is doubtful but can be used."""


def read(content: bytes) -> PromptSet:
    """The prompts of a file.

    Raises InputError with one ``line N: path: problem`` for each thing that is wrong.
    """
    lines = [
        (number, line)
        for number, line in enumerate(content.splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith(b"//")
    ]
    if not lines:
        raise InputError(f'empty. The first line is {{"schema": "{SCHEMA}", "name": …, …}}')
    header, problems = _parsed(_Header, *lines[0])
    if header is None:
        raise InputError(*problems)
    problems += [f"line {lines[0][0]}: {text}" for text in _request_problems(header.parameters)]
    prompts: list[tuple[int, _Prompt]] = []
    for number, line in lines[1:]:
        prompt, found = _parsed(_Prompt, number, line)
        problems += found
        if prompt is not None:
            prompts.append((number, prompt))
            problems += [f"line {number}: {text}" for text in _prompt_problems(prompt)]
    problems += _repeated(prompts)
    if not lines[1:]:
        problems.append("no prompts. Each line after the first is one")
    if problems:
        raise InputError(*problems)
    questions = tuple(_question(header, prompt) for _, prompt in prompts)
    return PromptSet(
        name=header.name,
        version=header.version,
        digest=hashlib.sha256(content).hexdigest(),
        questions=questions,
        remarks=tuple(_remarks(questions)),
    )


def example() -> bytes:
    """The file that is shipped."""
    return files(__package__).joinpath("example-prompts.jsonl").read_bytes()


def _parsed(model: type[_L], number: int, line: bytes) -> tuple[_L | None, list[str]]:
    try:
        return model.model_validate(json.loads(line)), []
    except ValidationError as error:
        return None, [f"line {number}: {_path(e['loc'])}: {e['msg']}" for e in error.errors()]
    except (ValueError, RecursionError) as error:
        return None, [f"line {number}: no JSON: {error}"]


def _path(location: Sequence[int | str]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.lstrip(".") or "(line)"


def _request_problems(parameters: Mapping[str, Any]) -> list[str]:
    return [
        f"parameters.{name}: the prober sets it itself. Leave it out"
        for name in sorted(_OURS & parameters.keys())
    ]


def _prompt_problems(prompt: _Prompt) -> list[str]:
    problems = _request_problems(prompt.parameters)
    for i, message in enumerate(prompt.messages):
        if not isinstance(message.get("role"), str):
            problems.append(f"messages[{i}].role: missing. Give system, user, assistant or tool")
        elif message.get("content") is None and "tool_calls" not in message:
            problems.append(f"messages[{i}].content: missing")
    if prompt.messages[-1].get("role") not in {"user", "tool"}:
        problems.append("messages: the last one must be the user's or a tool's, to be answered")
    offered = {tool.get("function", {}).get("name") for tool in prompt.tools}
    for i, check in enumerate(prompt.checks):
        problem = _check_problem(check, prompt.reference, offered)
        if problem:
            problems.append(f"checks[{i}].{problem}")
    return problems


def _check_problem(check: Check, reference: str, offered: set[str | None]) -> str:
    if isinstance(check, Regex):
        if check.problem:
            return f"pattern: {check.problem}"
    elif isinstance(check, JsonSchema):
        return _schema_problem(check.json_schema)
    elif isinstance(check, Similarity):
        if not reference:
            return "type: similarity needs the prompt's reference"
        if check.low > check.high:
            return f"low: {check.low:g} is above high {check.high:g}"
    elif isinstance(check, ToolUse) and check.name not in offered:
        return f"name: {check.name!r} is none of the prompt's tools"
    return ""


def _schema_problem(schema: Mapping[str, Any]) -> str:
    from jsonschema import Draft202012Validator, SchemaError  # noqa: PLC0415 - takes a while

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"schema: {error.json_path}: {error.message}"
    foreign = [reference for reference in _references(schema) if not reference.startswith("#")]
    if foreign:
        return f"schema: $ref {foreign[0]!r} leads out of the schema, and is never fetched"
    text = json.dumps(schema)
    if '"unevaluatedProperties"' in text and '"patternProperties"' in text:
        return (
            "schema: unevaluatedProperties beside patternProperties, whose patterns cannot be "
            "searched for a bounded time there. Use additionalProperties"
        )
    return ""


def _references(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for value in schema.values():
            yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


def _repeated(prompts: Sequence[tuple[int, _Prompt]]) -> Iterator[str]:
    seen: dict[str, int] = {}
    for number, prompt in prompts:
        if prompt.id in seen:
            yield f"line {number}: id: {prompt.id!r} is also the one of line {seen[prompt.id]}"
        seen.setdefault(prompt.id, number)


def _question(header: _Header, prompt: _Prompt) -> Question:
    return Question(
        id=prompt.id,
        topic=prompt.topic,
        weight=prompt.weight,
        messages=tuple(prompt.messages),
        checks=tuple(prompt.checks),
        reference=prompt.reference,
        parameters=header.parameters | prompt.parameters,
        tools=tuple(prompt.tools),
    )


def _remarks(questions: Sequence[Question]) -> Iterator[str]:
    if len(questions) < NEEDED:
        yield (
            f"{len(questions)} prompts: fewer than {NEEDED} can't show that a version is not worse "
            "by 5 points, however equal it is"
        )
    unchecked = [question.id for question in questions if not question.checks]
    if unchecked:
        yield f"{len(unchecked)} prompts have no checks, so only a judge can score them: " + (
            ", ".join(unchecked[:5]) + (", …" if len(unchecked) > 5 else "")  # noqa: PLR2004 - shown
        )
    asked = Counter(json.dumps([q.messages, q.tools], sort_keys=True) for q in questions)
    again = sum(count - 1 for count in asked.values() if count > 1)
    if again:
        yield f"{again} prompts ask the same as another one and tell nothing new"
    for question in questions:
        for i, check in enumerate(question.checks):
            if question.reference and isinstance(check, Regex | Exact | Numeric):
                score = check.score(Answer(text=question.reference), question.reference)
                if score.value < 1.0:
                    yield f"{question.id}: checks[{i}] rejects the reference: {score.reason}"


def load(name: str) -> PromptSet:
    """The set of that file, or the one that is shipped.

    Raises InputError, and OSError for a file that can't be read.
    """
    return read(example() if name == EXAMPLE else Path(name).read_bytes())


def described(prompt_set: PromptSet) -> list[str]:
    """What a set holds, for people."""
    questions = prompt_set.questions
    topics = Counter(question.topic or "(none)" for question in questions)
    checks = Counter(check.type for question in questions for check in question.checks)
    smallest = -math.log(PASS_LEVEL) / len(questions)
    name = f"{prompt_set.name} {prompt_set.version}"
    return [
        f"{name}: {len(questions)} prompts, sha256 {prompt_set.digest[:12]}…",
        "topics: " + ", ".join(f"{name} {count}" for name, count in topics.items()),
        "checks: " + (", ".join(f"{name} {n}" for name, n in checks.most_common()) or "none"),
        f"equal answers to all of them show a loss below {100 * smallest:.1f} points, no smaller",
    ]
