"""`picker explain`: why each request went where it went, from the pick log."""

from __future__ import annotations

import json
import sys
from collections import deque
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

_REQUIRED = frozenset({"at", "request", "status", "error"})
"""What each line of a pick log has."""


def explain(
    log: Annotated[Path, typer.Argument(help="File that --pick-log of `picker serve` writes.")],
    request: Annotated[
        str | None, typer.Option(help="Only the request with this x-request-id.")
    ] = None,
    pool: Annotated[
        str | None, typer.Option(help="Only requests of this pool, NAMESPACE/NAME.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="Only requests sent to this ip:port.")
    ] = None,
    errors: Annotated[bool, typer.Option("--errors", help="Only requests that failed.")] = False,
    last: Annotated[int, typer.Option(min=1, help="At most the last N of them.")] = 5,
) -> None:
    """Tell why requests went where they went: candidates, costs, choice, outcome."""
    found: deque[dict[str, Any]] = deque(maxlen=last)
    try:
        with log.open(encoding="utf-8", errors="replace") as lines:
            for entry in _entries(lines):
                if request is not None and entry.get("request") != request:
                    continue
                if pool is not None and entry.get("pool") != pool:
                    continue
                if endpoint is not None and entry.get("endpoint") != endpoint:
                    continue
                if errors and entry.get("error") is None:
                    continue
                found.append(entry)
    except OSError as error:
        print(f"inference-rollouts picker explain: {log}: {error}", file=sys.stderr)  # noqa: T201
        raise typer.Exit(2) from error
    if not found:
        print(f"{log}: no request that fits.", file=sys.stderr)  # noqa: T201
        raise typer.Exit(1)
    print("\n\n".join(explained(entry) for entry in found))  # noqa: T201


def _entries(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The log's lines: the last one may be in the middle of being written."""
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.keys() >= _REQUIRED:
            yield entry


def explained(entry: dict[str, Any]) -> str:
    """One request, as text for people."""
    return "\n".join([*_summary(entry), *_decision(entry.get("decision"), entry)])


def _summary(entry: dict[str, Any]) -> Iterator[str]:
    name = f"request {entry.get('request') or '(without x-request-id)'}"
    if "endpoint" not in entry:
        yield f"{name}: refused with {entry.get('status')}, {entry.get('error')}"
        yield f"  {entry.get('message', '')}"
        return
    outcome = str(entry.get("error") or entry.get("ended"))
    if entry.get("status") is not None:
        outcome = f"status {entry['status']}, {outcome}"
    yield f"{name}: {entry['endpoint']}, version {entry.get('version') or '(none)'}"
    target = entry.get("target")
    rewritten = f" as {target}" if target and target != entry.get("model") else ""
    pool = f"pool {entry['pool']}, " if entry.get("pool") else ""
    model = f"model {entry.get('model') or '(none)'}{rewritten}"
    yield f"  {pool}{model}, sample {entry.get('sample')}"
    first = entry.get("ttft_s")
    times = f"{1000 * entry['duration_s']:.0f} ms"
    if first is not None:
        times = f"first token after {1000 * first:.0f} ms, end after {times}"
    yield f"  {outcome}, {times}"
    if entry.get("served") and entry["served"] != entry["endpoint"]:
        yield f"  served by {entry['served']} in its place"


def _decision(decision: dict[str, Any] | None, entry: dict[str, Any]) -> Iterator[str]:
    if not decision:
        return
    for name, addresses in (decision.get("removed") or {}).items():
        if addresses:
            yield f"  {name} took out {', '.join(addresses)}"
    candidates = decision.get("considered") or ()
    if not candidates:
        return
    parts = list(candidates[0].get("parts") or {})
    heading = (
        *("", "endpoint", "score", *parts, "in flight", "seats"),
        *("pending", "cached", "kv", "health"),
    )
    rows = [heading]
    for each in candidates:
        marked = "→" if each["address"] == entry.get("endpoint") else ""
        scores = (f"{each['parts'].get(part, 0.0):.4g}" for part in parts)
        rows.append(
            (
                *(marked, each["address"], f"{each['score']:.4g}", *scores),
                *(f"{each['in_flight']:g}", f"{each['seats']:g}" if each.get("seats") else "?"),
                f"{each['pending_tokens']:g}",
                *(f"{each['cached_tokens']:g}", f"{each['kv_share']:.0%}", f"{each['health']:g}"),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  " + "  ".join(cells).rstrip()
