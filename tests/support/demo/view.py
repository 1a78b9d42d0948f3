"""What the demo shows: a live panel while a step runs, and the table of all steps at the end."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich import box
from rich.console import Group
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from support.traffic import Window

_BAR_WIDTH: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One step as it ended: the weights on the object and the answers given under them."""

    act: str
    step: str
    weights: Mapping[str, int | None]
    versions: Sequence[str]
    window: Window
    harmed: bool = False
    """Whether requests fail in this step, which is what it shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the analysis said at the end of one AnalysisRun."""

    act: str
    phase: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What is happening right now."""

    title: str
    command: str
    waiting_for: str
    weights: Mapping[str, int | None]
    versions: Sequence[str]
    window: Window | None
    failed_total: int
    said: str = ""


def panel(scene: Scene) -> Panel:
    """The live panel of a scene."""
    lines: list[RenderableType] = [
        Text.assemble(("$ ", "dim"), (scene.command, "bold")),
        Text.assemble(("now       ", "dim"), scene.waiting_for),
        Text.assemble(("weights   ", "dim"), weights_text(scene.weights)),
    ]
    if scene.window is not None:
        lines.append(_shares(scene.versions, scene.window))
        style = "green" if scene.failed_total == 0 else "bold red"
        lines.append(
            Text.assemble(
                ("requests  ", "dim"),
                f"{scene.window.total} in this step, ",
                (f"{scene.failed_total} failed", style),
            )
        )
    if scene.said:
        lines.append(Text.assemble(("analysis  ", "dim"), scene.said.splitlines()[0]))
    return Panel(Group(*lines), title=scene.title, title_align="left", box=box.ROUNDED)


def verdicts(found: Sequence[Said]) -> Group:
    """What the analysis said, act by act."""
    lines: list[RenderableType] = [Text("What the analysis said", style="bold")]
    for said in found:
        lines.append(Text.assemble("\n", (said.act, "bold"), "  AnalysisRun ", said.phase))
        lines += [Padding(Text(line), (0, 0, 0, 2)) for line in said.text.splitlines()]
    return Group(*lines)


def summaries(rows: Sequence[Row]) -> list[Table]:
    """One table an act: weights on the object, share served by each version, failures."""
    return [
        _summary(act, list(of_act)) for act, of_act in itertools.groupby(rows, key=lambda r: r.act)
    ]


def _summary(act: str, rows: Sequence[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=act, title_style="bold", title_justify="left")
    table.add_column("step", no_wrap=True)
    table.add_column("weights on the object")
    for version in rows[0].versions:
        table.add_column(f"answered by\n{version}", justify="right")
    table.add_column("answers", justify="right")
    table.add_column("failed", justify="right")
    for row in rows:
        failed = len(row.window.failures)
        table.add_row(
            row.step,
            weights_text(row.weights),
            *(_interval(version, row.window) for version in row.versions),
            str(row.window.total),
            Text(str(failed), style=_style(failed, harmed=row.harmed)),
        )
    return table


def _style(failed: int, *, harmed: bool) -> str:
    if not failed:
        return "green"
    return "yellow" if harmed else "bold red"


def weights_text(weights: Mapping[str, int | None]) -> str:
    """``name weight`` pairs; an absent weight shows as a dash."""
    return "  ".join(
        f"{name} {'-' if weight is None else weight}" for name, weight in weights.items()
    )


def _shares(versions: Sequence[str], window: Window) -> Table:
    table = Table.grid(padding=(0, 1))
    for number, version in enumerate(versions):
        share = window.share(version)
        low, high = window.interval(version)
        table.add_row(
            Text("answered " if number == 0 else "         ", style="dim"),
            version,
            ProgressBar(total=1.0, completed=share, width=_BAR_WIDTH),
            f"{share:6.1%}  [{low:.1%} to {high:.1%}]",
        )
    return table


def _interval(version: str, window: Window) -> str:
    low, high = window.interval(version)
    return f"{window.share(version):.1%}\n{low:.1%} to {high:.1%}"
