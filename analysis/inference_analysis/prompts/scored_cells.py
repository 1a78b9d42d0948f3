"""Scores files put into a cells file, or standing for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inference_analysis import checking
from inference_analysis.errors import InputError
from inference_analysis.prompts import scores
from inference_analysis.prompts.probe_times import without_probes
from inference_analysis.reports import rendered
from inference_analysis.schema import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from inference_analysis.schema import CellsDocument


def read_scores(files: Sequence[Path]) -> dict[str, scores.Scores]:
    """The files' content by name. Raises InputError with the file in each problem, OSError."""
    found, problems = {}, []
    for file in files:
        try:
            found[str(file)] = scores.read(file.read_bytes())
        except InputError as error:
            problems += [f"{file}: {problem}" for problem in error.problems]
    if problems:
        raise InputError(*problems)
    return found


def with_scores(cells: CellsDocument, files: Sequence[Path]) -> CellsDocument:
    """The cells with the files' scores as further prompts, without the windows of their probes.

    Raises InputError for scores of other versions, or that the cells have already; OSError.
    """
    read = read_scores(files)
    found = scores.prompt_documents(
        read,
        canary_hash=cells.rollout.canary_hash,
        stable_hash=cells.rollout.stable_hash,
    )
    headers = [item.header for item in read.values()]
    spans = [(header.started, header.ended) for header in headers if header.ended]
    return with_prompts(without_probes(cells, spans), found)


def with_prompts(cells: CellsDocument, prompts: Sequence[Mapping[str, Any]]) -> CellsDocument:
    """The cells with further prompts. Raises InputError for those that the cells have already."""
    values = cells.model_dump(mode="json", by_alias=True, exclude_unset=True)
    values["prompts"] = [*values.get("prompts", []), *prompts]
    return checking.parse(rendered(values))


def cells_of(files: Sequence[Path]) -> CellsDocument:
    """A cells file of scores alone: one look at the end of its plan. Raises InputError, OSError."""
    found = read_scores(files)
    headers = [item.header for item in found.values()]
    values = {
        "schema": SCHEMA,
        "rollout": {
            "canaryHash": next((h.canary_hash for h in headers if h.canary_hash), ""),
            "stableHash": next((h.stable_hash for h in headers if h.stable_hash), ""),
        },
        "look": {"id": "scores", "fraction": 1.0},
        # Prompts have no windows; a grid is asked for all the same.
        "windows": {"start": [0.0], "seconds": [1.0]},
        "pods": [],
        "prompts": scores.prompt_documents(found),
    }
    return checking.parse(rendered(values))
