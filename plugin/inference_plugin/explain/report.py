"""An explanation as a person reads it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from inference_plugin.backends import backend_of_item

if TYPE_CHECKING:
    from rich.console import Console

    from inference_plugin.explain.explanation import Explanation

_NONE: Final = "-"


def show(found: Explanation, console: Console) -> None:
    """Print it from what is asked for to what would be written."""
    console.print(Text(f"Rollout {found.rollout}", style="bold"), Text(f"({found.phase})"))
    if found.desired is not None:
        console.print(
            f"  asked for: canary {found.desired} of {found.maximum}: {found.source}",
            soft_wrap=True,
        )
    _revisions(found, console)
    _weights(found, console)
    for text in found.drift:
        console.print(Text(f"changed by somebody else: {text}", style="yellow"), soft_wrap=True)
    if found.problem:
        console.print(Text(f"nothing is done: {found.problem}", style="bold red"), soft_wrap=True)
        return
    for write in found.writes:
        console.print(Text(f"would write: {write.summary}", style="bold"), soft_wrap=True)
        console.print(f"  {write.kind} of {write.object}", soft_wrap=True)
        lines = write.body if isinstance(write.body, list) else [write.body]
        for line in lines:
            console.print(Text(f"    {json.dumps(line, sort_keys=True)}"), soft_wrap=True)
    for reason, message in found.awaited:
        line = Text("waits: ", style="yellow").append(f"{reason}: {message}", style="default")
        console.print(line, soft_wrap=True)
    for note in found.notes:
        console.print(f"note: {note}", soft_wrap=True)
    if found.settled:
        console.print(Text("in place and verified: nothing to write.", style="green"))


def _revisions(found: Explanation, console: Console) -> None:
    if not found.revisions:
        return
    table = Table(box=None, pad_edge=False)
    for name in ("  revision", "pod-template-hash", "pods ready", "goes to"):
        table.add_column(name, overflow="fold")
    for each in found.revisions:
        table.add_row(
            f"  {each.role}",
            each.pod_template_hash,
            f"{each.ready} of {each.replicas}",
            each.destination or "nowhere yet",
        )
    console.print(table)


def _weights(found: Explanation, console: Console) -> None:
    if not found.weights:
        return
    table = Table(box=None, pad_edge=False)
    for name in ("  object", "rule", "backend or target"):
        table.add_column(name, overflow="fold")
    for name in ("found", "commanded", "then"):
        table.add_column(name, justify="right")
    namespace = found.rollout.partition("/")[0]
    before = ""
    for each in found.weights:
        table.add_row(
            f"  {_short(each.object, namespace)}" if each.object != before else "",
            each.place or _NONE,
            _short_item(each.item, namespace),
            *(_number(value) for value in (each.found, each.commanded, each.then)),
        )
        before = each.object
    console.print(table)


def _number(value: int | None) -> str:
    return _NONE if value is None else str(value)


def _short(title: str, namespace: str) -> str:
    """``Kind NAMESPACE/NAME`` without the namespace where it is the Rollout's own."""
    return title.replace(f" {namespace}/", " ", 1)


def _short_item(item: str, namespace: str) -> str:
    """A backend as ``Kind NAME``; the name of a target stays as it is."""
    backend = backend_of_item(item)
    return item if backend is None else _short(str(backend), namespace)
