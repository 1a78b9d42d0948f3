"""The scores file: JSONL, one line for each answer. docs/quality.md describes every field.

The prober writes it; other tools can, with ``id``, ``arm`` and ``score`` alone.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from inference_analysis.errors import InputError
from inference_analysis.observations import QUALITY, Arm

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

SCHEMA: Final = "inference-rollouts.io/analysis-scores/v1"
SHOWN: Final = 4_000
"""Characters of an answer that go into a cells file."""

Value = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Line(BaseModel):
    # Other tools have fields of their own.
    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=False
    )


class PromptSetMark(_Line):
    """Which prompts were asked."""

    name: str = ""
    version: str = ""
    sha256: str = ""


class JudgeMark(_Line):
    """Who judged."""

    model: str
    prompt_version: str = ""
    prompt_sha256: str = ""
    pairs: int = 0
    nonsense: int = 0
    inconsistent: int = 0


class ScoresHeader(_Line):
    """The first line."""

    schema_: Annotated[Literal["inference-rollouts.io/analysis-scores/v1"], Field(alias="schema")]
    prompt_set: PromptSetMark = PromptSetMark()
    canary_hash: str = ""
    stable_hash: str = ""
    judge: JudgeMark | None = None
    started: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """First and last request, in seconds since the epoch; 0: not known."""
    ended: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class ScoreLine(_Line):
    """One answer's scores."""

    id: Annotated[str, Field(min_length=1)]
    arm: Arm
    repeat: Annotated[int, Field(ge=0)] = 0
    topic: str = ""
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    score: Value | None = None
    scores: dict[str, Value] = {}
    reason: str = ""
    text: str = ""
    answer: str = ""
    answer_sha256: str = ""

    @model_validator(mode="after")
    def _scored(self) -> ScoreLine:
        if self.score is None and not self.scores:
            message = "neither score nor scores. Give a number from 0 to 1"
            raise ValueError(message)
        if self.score is not None and QUALITY in self.scores:
            message = f"score and scores.{QUALITY} say the same. Give one"
            raise ValueError(message)
        return self

    @property
    def measures(self) -> Mapping[str, float]:
        """Measure → score; ``score`` is the measure ``quality``."""
        return self.scores if self.score is None else {QUALITY: self.score, **self.scores}


_L = TypeVar("_L", bound=_Line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """One file."""

    header: ScoresHeader
    lines: tuple[ScoreLine, ...]


def read(content: bytes) -> Scores:
    """A file's content, checked.

    Raises InputError with one ``line N: path: problem`` for each thing that is wrong.
    """
    rows = [
        (number, line) for number, line in enumerate(content.splitlines(), start=1) if line.strip()
    ]
    if not rows:
        raise InputError(f'empty. The first line is {{"schema": "{SCHEMA}"}}')
    header, problems = _parsed(ScoresHeader, *rows[0])
    if header is None:
        raise InputError(*problems)
    lines: list[ScoreLine] = []
    seen: dict[tuple[str, Arm, int], int] = {}
    for number, row in rows[1:]:
        line, found = _parsed(ScoreLine, number, row)
        problems += found
        if line is None:
            continue
        key = (line.id, line.arm, line.repeat)
        if key in seen:
            problems.append(
                f"line {number}: id: {line.id!r} of {line.arm} is also on line {seen[key]}. Number "
                "repeated answers by repeat"
            )
        seen.setdefault(key, number)
        lines.append(line)
    problems = problems or list(_unpaired(lines))
    if problems:
        raise InputError(*problems)
    return Scores(header=header, lines=tuple(lines))


def _parsed(model: type[_L], number: int, row: bytes) -> tuple[_L | None, list[str]]:
    try:
        return model.model_validate(json.loads(row, parse_constant=_refused)), []
    except ValidationError as error:
        return None, [f"line {number}: {_path(e['loc'])}: {e['msg']}" for e in error.errors()]
    except (ValueError, RecursionError) as error:
        return None, [f"line {number}: no JSON: {error}"]


def _refused(constant: str) -> float:
    message = f"{constant} is no number"
    raise ValueError(message)


def _path(location: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in location) or "(line)"


def _unpaired(lines: Iterable[ScoreLine]) -> Iterator[str]:
    arms: defaultdict[tuple[str, str], set[Arm]] = defaultdict(set)
    for line in lines:
        for measure in line.measures:
            arms[measure, line.id].add(line.arm)
    if not arms:
        yield "no scores. Each line after the first is an answer's"
    for (measure, identifier), found in arms.items():
        for arm in Arm:
            if arm not in found:
                yield f"{identifier!r}: no {measure} score of arm {arm}. Score both, or neither"


def prompt_documents(
    files: Mapping[str, Scores], *, canary_hash: str = "", stable_hash: str = ""
) -> list[dict[str, Any]]:
    """The ``prompts`` of a cells file.

    Raises InputError when the files are of different versions, prompt sets or judges, when they
    are not of the cells' versions (empty hashes are not compared), or score one thing twice.
    """
    _require_one_comparison(files, canary_hash, stable_hash)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    owner: dict[tuple[str, str], str] = {}
    problems: list[str] = []
    for name, scores in files.items():
        groups: defaultdict[tuple[str, str], list[ScoreLine]] = defaultdict(list)
        for line in scores.lines:
            for measure in line.measures:
                groups[measure, line.id].append(line)
        for key, lines in groups.items():
            if key in found:
                problems.append(f"{name}: {key[1]!r} has a {key[0]} score in {owner[key]} too")
            found[key], owner[key] = _prompt(*key, lines), name
    if problems:
        raise InputError(*problems)
    return list(found.values())


def _prompt(measure: str, identifier: str, lines: Sequence[ScoreLine]) -> dict[str, Any]:
    canary, stable = (
        {line.repeat: line for line in lines if line.arm is arm} for arm in (Arm.CANARY, Arm.STABLE)
    )
    # What is shown is the repeat that loses most; other tools need not number them alike.
    both = sorted(canary.keys() & stable.keys())
    if both:
        worst = max(both, key=lambda r: stable[r].measures[measure] - canary[r].measures[measure])
        mine, other = canary[worst], stable[worst]
    else:
        mine, other = next(iter(canary.values())), next(iter(stable.values()))
    return {
        "id": identifier,
        "measure": measure,
        "topic": mine.topic or other.topic,
        "weight": mine.weight,
        "canary": [canary[r].measures[measure] for r in sorted(canary)],
        "stable": [stable[r].measures[measure] for r in sorted(stable)],
        "text": (mine.text or other.text)[:SHOWN],
        "canaryAnswer": _shown(mine),
        "stableAnswer": _shown(other),
        "canaryReason": mine.reason,
        "stableReason": other.reason,
    }


def _shown(line: ScoreLine) -> str:
    if line.answer:
        return line.answer if len(line.answer) <= SHOWN else line.answer[:SHOWN] + " …"
    return f"(sha256 {line.answer_sha256})" if line.answer_sha256 else ""


def _require_one_comparison(
    files: Mapping[str, Scores], canary_hash: str, stable_hash: str
) -> None:
    marks: dict[str, dict[str, str]] = defaultdict(dict)
    for name, scores in files.items():
        for what, value in _marks(scores.header):
            if value:
                marks[what][name] = value
    problems = []
    for what, given in marks.items():
        if len(set(given.values())) > 1:
            shown = ", ".join(f"{name}: {value}" for name, value in given.items())
            problems.append(f"{what}: differs between the files ({shown}); they do not compare")
        cells = {"canaryHash": canary_hash, "stableHash": stable_hash}.get(what, "")
        problems += [
            f"{name}: {what} is {value!r}, the cells are of {cells!r}. Probe these versions"
            for name, value in given.items()
            if cells and value != cells
        ]
    if problems:
        raise InputError(*problems)


def _marks(header: ScoresHeader) -> Iterator[tuple[str, str]]:
    """What must be alike in all files that are compared together."""
    yield "canaryHash", header.canary_hash
    yield "stableHash", header.stable_hash
    prompts = header.prompt_set
    yield "promptSet", " ".join(filter(None, (prompts.name, prompts.version, prompts.sha256)))
    judge = header.judge
    if judge is not None:
        yield "judge", f"{judge.model} {judge.prompt_version} {judge.prompt_sha256}"
