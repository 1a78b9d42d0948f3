"""Traces: what came when. The own format, and public ones converted into it.

A trace is CSV with a header or JSON lines. Fields: ``at`` (seconds from the start),
``prompt_tokens``, ``output_tokens``, and optionally ``prefix`` and ``prefix_tokens``: requests
that name the same prefix begin with the same so many tokens.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from inference_picker.errors import ConfigError
from inference_picker.simulation.engine import BLOCK_TOKENS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

_BURSTGPT: Final = ("Timestamp", "Request tokens", "Response tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedRequest:
    """One request of a trace."""

    at: float
    prompt_tokens: int
    output_tokens: int
    prefix: str = ""
    prefix_tokens: int = 0
    blocks: tuple[int, ...] = ()
    """Identity of each full block of the prompt, `BLOCK_TOKENS` each."""


def traced(
    *,
    number: int,
    at: float,
    prompt_tokens: int,
    output_tokens: int,
    prefix: str = "",
    prefix_tokens: int = 0,
) -> TracedRequest:
    """A request whose blocks are shared as its prefix says. ``number`` tells the rest apart."""
    shared = min(prefix_tokens, prompt_tokens) // BLOCK_TOKENS
    total = prompt_tokens // BLOCK_TOKENS
    blocks = (
        *(hash((prefix, index)) for index in range(shared)),
        *(hash(("", number, index)) for index in range(shared, total)),
    )
    return TracedRequest(
        at=at,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        prefix=prefix,
        prefix_tokens=prefix_tokens,
        blocks=blocks,
    )


def read_trace(path: Path) -> list[TracedRequest]:
    """The requests of a file by time; BurstGPT's CSV is recognised by its columns.

    Raises ConfigError that names the line.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            if path.suffix == ".csv":
                rows: Iterator[Mapping[str, Any]] = csv.DictReader(file)
            else:
                rows = (json.loads(line) for line in file if line.strip())
            found = list(_requests(rows, path))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: can't be read as a trace: {error}") from error
    if not found:
        raise ConfigError(f"{path}: no requests in it.")
    return sorted(found, key=lambda each: each.at)


def write_trace(path: Path, requests: Iterable[TracedRequest]) -> None:
    """Write the own format: CSV by the file's ending, else JSON lines."""
    names = ("at", "prompt_tokens", "output_tokens", "prefix", "prefix_tokens")
    rows = [{name: getattr(each, name) for name in names} for each in requests]
    with path.open("w", newline="", encoding="utf-8") as file:
        if path.suffix == ".csv":
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)


def _requests(rows: Iterator[Mapping[str, Any]], path: Path) -> Iterator[TracedRequest]:
    for number, row in enumerate(rows, 1):
        try:
            yield _request(number, row)
        except (KeyError, TypeError, ValueError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise ConfigError(
                f"{path}, request {number}: {what}. Needed are at, prompt_tokens and "
                f"output_tokens, or BurstGPT's {', '.join(_BURSTGPT)}."
            ) from error


def _request(number: int, row: Mapping[str, Any]) -> TracedRequest:
    if _BURSTGPT[0] in row:
        # Failed requests have 0 response tokens (BurstGPT README); a server would still compute.
        at, prompt, output = (float(row[name]) for name in _BURSTGPT)
        return traced(
            number=number,
            at=at,
            prompt_tokens=max(1, int(prompt)),
            output_tokens=max(1, int(output)),
        )
    return traced(
        number=number,
        at=float(row["at"]),
        prompt_tokens=max(1, int(row["prompt_tokens"])),
        output_tokens=max(1, int(row["output_tokens"])),
        prefix=str(row.get("prefix") or ""),
        prefix_tokens=int(row.get("prefix_tokens") or 0),
    )
