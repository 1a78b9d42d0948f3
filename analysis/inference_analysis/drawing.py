"""The plots of a report as inline SVG, from a verdict document's figures.

matplotlib draws in stand-in colours that are then replaced by the page's CSS variables, so that one
drawing serves light and dark. The same numbers give the same bytes: no date, no random ids.
"""

from __future__ import annotations

import io
import math
import re
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from inference_analysis.spending import spent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


_COLOURS: Final = {
    "ink": "#010203",
    "muted": "#040506",
    "grid": "#070809",
    "canary": "#0a0b0c",
    "stable": "#0d0e0f",
    "bad": "#101112",
    "good": "#131415",
    "page": "#161718",
}
INK, MUTED, GRID, CANARY, STABLE, BAD, GOOD, PAGE = _COLOURS.values()
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "inference-rollouts",
    "font.size": 9.5,
    "font.family": "DejaVu Sans",
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "xtick.minor.size": 0.0,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "text.color": INK,
    "legend.frameon": False,
    "legend.labelcolor": MUTED,
    "legend.fontsize": 8.5,
    "mathtext.fontset": "dejavusans",
}
_WIDTH: Final = 8.6
_FARTHEST: Final = 3.0
"""Margins that the forest plot is wide to either side; what is farther is an arrow."""
_FONT: Final = "system-ui, sans-serif"


def forest(gates: Sequence[Mapping[str, Any]]) -> str:
    """Estimate and bounds of each gate in units of its margin; empty without any."""
    shown = [g for g in gates if "estimate" in g and g["marginOnScale"] > 0]
    if not shown:
        return ""
    figure = Figure(figsize=(_WIDTH, 0.75 + 0.42 * len(shown)))
    axes = figure.add_axes(
        (0.2, 0.42 / figure.get_figheight(), 0.5, 1.0 - 0.75 / figure.get_figheight())
    )
    axes.axvspan(-_FARTHEST, 1.0, color=GOOD, alpha=0.10, linewidth=0)
    axes.axvspan(1.0, _FARTHEST, color=BAD, alpha=0.10, linewidth=0)
    axes.axvline(0.0, color=MUTED, linewidth=1.0)
    axes.axvline(1.0, color=BAD, linewidth=1.2, linestyle=(0, (4, 3)))
    for row, gate in enumerate(reversed(shown)):
        unit = gate["marginOnScale"]
        low, middle, high = (_clipped(gate[k], unit) for k in ("lower", "estimate", "upper"))
        colour = {"fail": BAD, "proved": GOOD, "step": GOOD}.get(gate["outcome"], INK)
        axes.plot([low, high], [row, row], color=colour, linewidth=2.2, solid_capstyle="round")
        for end, value in ((low, gate["lower"]), (high, gate["upper"])):
            if value is None or abs(value / unit) > _FARTHEST:
                marker = "<" if end < 0 else ">"
                axes.plot([end], [row], marker=marker, color=colour, markersize=6, clip_on=False)
        filled = gate["role"] == "primary"
        axes.plot(
            [middle],
            [row],
            marker="o",
            markersize=8,
            markeredgecolor=colour,
            markerfacecolor=colour if filled else PAGE,
            markeredgewidth=1.6,
        )
        text = f"{_signed(gate, 'estimate')}  [{_signed(gate, 'lower')}, {_signed(gate, 'upper')}]"
        axes.text(1.03, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=9)
    axes.set_yticks(range(len(shown)), [g["name"] for g in reversed(shown)])
    axes.tick_params(axis="y", labelcolor=INK, pad=10)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xlim(-_FARTHEST, _FARTHEST)
    axes.set_xticks([-2, -1, 0, 1, 2], ["-2", "-1", "equal", "margin", "2 margins"])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("← better        worse →")
    return _svg(figure, "forest", "Each gate's estimate and bounds in units of its margin")


def pods(entry: Mapping[str, Any], number: int) -> str:
    """One gate's pods: canary and stable, each a dot."""
    figure = Figure(figsize=(_WIDTH, 1.75))
    axes = figure.add_axes((0.11, 0.3, 0.86, 0.5))
    axes.axvline(0.0, color=MUTED, linewidth=1.0)
    worst = max(
        (p for p in entry["pods"] if p["arm"] == "canary"), key=lambda p: p["effect"], default=None
    )
    for row, (arm, colour) in enumerate((("stable", STABLE), ("canary", CANARY))):
        values = [100.0 * math.expm1(p["effect"]) for p in entry["pods"] if p["arm"] == arm]
        # A fixed pattern, so that dots of equal value stand beside each other and bytes repeat.
        heights = [row + 0.09 * ((i % 5) - 2) for i in range(len(values))]
        size = 46 if len(values) <= 60 else 16  # noqa: PLR2004 - what still reads as dots
        axes.scatter(values, heights, s=size, color=colour, alpha=0.75, linewidths=0)
        if values:
            mean = sum(values) / len(values)
            axes.plot([mean, mean], [row - 0.32, row + 0.32], color=colour, linewidth=2.0)
    if worst is not None:
        axes.annotate(
            worst["name"] + (f" · {worst['node']}" if worst["node"] else ""),
            (100.0 * math.expm1(worst["effect"]), 1.0),
            xytext=(0, 16),
            textcoords="offset points",
            fontsize=8,
            color=MUTED,
            ha="center",
            annotation_clip=False,
        )
    paired = all(p["arm"] == "canary" for p in entry["pods"])
    axes.set_yticks([1] if paired else [0, 1], ["pairs"] if paired else ["stable", "canary"])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(0.3 if paired else -0.55, 1.6)
    axes.xaxis.set_major_formatter(_percent_ticks)
    axes.grid(visible=True, axis="x")
    against = "the control adapter on the same pod" if paired else "concurrent stable pods"
    axes.set_xlabel(f"observed against expected from {against} (line: mean)")
    axes.set_title(entry["gate"], pad=8)
    return _svg(figure, f"pods{number}", f"{entry['gate']} of each pod")


def distributions(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Cumulative shares at the bucket edges, one drawing a metric."""
    drawn = []
    for number, entry in enumerate(entries):
        edges = entry["le"]
        figure = Figure(figsize=(_WIDTH / 2.0, 2.7))
        axes = figure.add_axes((0.14, 0.2, 0.82, 0.66))
        kept = _telling(entry)
        for arm, colour in (("stable", STABLE), ("canary", CANARY)):
            data = entry[arm]
            x = [edges[i] for i in kept]
            if data["low"]:
                low, high = ([data[k][i] for i in kept] for k in ("low", "high"))
                axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
            y = [data["share"][i] for i in kept]
            axes.plot(x, y, color=colour, linewidth=1.6, marker="o", markersize=3.5, label=arm)
        axes.set_xscale("log")
        axes.set_xticks(*_log_ticks([edges[i] for i in kept], "s" if _seconds(entry) else ""))
        axes.minorticks_off()
        axes.set_ylim(-0.02, 1.03)
        axes.set_yticks([0.0, 0.25, 0.5, 0.75, 1.0], ["0", "25 %", "50 %", "75 %", "100 %"])
        axes.grid(visible=True)
        axes.set_xlabel("bucket edge")
        axes.set_title(entry["metric"])
        axes.legend(loc="lower right")
        label = f"Share of requests up to each bucket edge, {entry['metric']}"
        drawn.append(_svg(figure, f"ecdf{number}", label))
    return drawn


def paths(entries: Sequence[Mapping[str, Any]], looks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Observed over expected as time goes on, one drawing a metric."""
    drawn = []
    for number, entry in enumerate(entries):
        begin = entry["until"][0] if entry["until"] else 0.0
        minutes = [(t - begin) / 60.0 for t in entry["until"]]
        figure = Figure(figsize=(_WIDTH / 2.0, 2.5))
        axes = figure.add_axes((0.15, 0.21, 0.81, 0.64))
        axes.axhline(0.0, color=MUTED, linewidth=1.0)
        low, high = (_changes(entry[k]) for k in ("stableLow", "stableHigh"))
        axes.fill_between(minutes, low, high, color=STABLE, alpha=0.18, linewidth=0)
        axes.plot(
            minutes,
            _changes(entry["window"]),
            linestyle="none",
            marker="o",
            markersize=2.6,
            color=CANARY,
            alpha=0.5,
        )
        running = _changes(entry["running"])
        axes.plot(minutes, running, color=CANARY, linewidth=1.8)
        for look in looks:
            at = (look["until"] - begin) / 60.0
            axes.axvline(at, color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)))
        single = sorted(v for v in _changes(entry["window"]) if not math.isnan(v))
        most = single[len(single) // 20 : len(single) - len(single) // 20]
        edges = [v for v in (*running, *low, *high, *most) if not math.isnan(v)]
        if edges:
            axes.set_ylim(min(*edges, -5.0) * 1.1, max(*edges, 5.0) * 1.1)
        axes.yaxis.set_major_formatter(_percent_ticks)
        axes.grid(visible=True, axis="y")
        axes.set_xlabel("minutes (dashed: looks)")
        axes.set_title(entry["metric"])
        drawn.append(_svg(figure, f"path{number}", f"{entry['metric']} against stable over time"))
    return drawn


def boundary(entry: Mapping[str, Any]) -> str:
    """Test statistics against their critical values, and the budget spent; empty without looks."""
    if not any(gate["points"] for gate in entry["gates"]):
        return ""
    figure = Figure(figsize=(_WIDTH, 3.1))
    axes = figure.add_axes((0.07, 0.17, 0.53, 0.7))
    shown = [g for g in entry["gates"] if any(p["z"] is not None for p in g["points"])]
    markers = "osD^vPX*"
    highest = 2.0
    for number, gate in enumerate(shown):
        planned = [p for p in gate["points"] if p["kind"] == "planned"]
        x = [p["fraction"] for p in planned]
        y = [p["critical"] for p in planned]
        if gate["finalCritical"] is not None:
            x, y = [*x, 1.0], [*y, gate["finalCritical"]]
        axes.plot(x, y, color=BAD, linewidth=1.0, alpha=0.5, marker="_", markersize=12)
        extra = 0
        at, z = [], []
        for point in gate["points"]:
            extra += point["kind"] == "extra"
            if point["z"] is not None:
                at.append(point["fraction"] + 0.035 * extra * (point["kind"] == "extra"))
                z.append(point["z"])
        axes.plot(
            at,
            z,
            color=CANARY if not number else INK,
            linewidth=0.9,
            label=gate["gate"],
            marker=markers[number % len(markers)],
            markersize=5.5,
        )
        highest = max([highest, *z, min(y, default=0.0)])
    axes.axhline(0.0, color=MUTED, linewidth=1.0)
    axes.set_xlim(0.0, max(1.04, 1.04 + 0.035 * _extras(entry)))
    axes.set_ylim(-3.0, min(max(highest * 1.35, 5.0), 12.0))
    axes.set_xticks([0.0, 0.25, 0.5, 0.75, 1.0], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.grid(visible=True, axis="y")
    axes.set_title("Harm (z) and the bounds that fail")
    axes.set_xlabel("share of the plan (red: bounds; extra looks are right of 100 %)")
    axes.legend(loc="lower left", ncols=2, handlelength=1.2, fontsize=7.5)
    right = figure.add_axes((0.7, 0.17, 0.28, 0.7))
    x = [0.0, *(p["fraction"] for p in entry["spent"])]
    y = [0.0, *(100.0 * p["alpha"] for p in entry["spent"])]
    curve = [i / 50.0 for i in range(51)]
    planned = [100.0 * spent(t, entry["budget"]) for t in curve]
    right.plot(curve, planned, color=MUTED, linewidth=1.0)
    right.plot(x, y, color=CANARY, linestyle="none", marker="o", markersize=5.5)
    if entry["spentByExtraLooks"]:
        total = y[-1] + 100.0 * entry["spentByExtraLooks"]
        right.plot([1.0], [total], color=BAD, marker="^", markersize=7, label="with extra looks")
        right.legend(loc="upper left")
    right.axhline(100.0 * entry["familyAlpha"], color=BAD, linewidth=1.2, linestyle=(0, (4, 3)))
    right.set_ylim(0.0, 115.0 * entry["familyAlpha"])
    right.set_xlim(0.0, 1.06)
    right.set_xticks([0.0, 0.5, 1.0], ["0", "50 %", "100 %"])
    right.yaxis.set_major_formatter(lambda v, _: f"{v:g} %")
    right.grid(visible=True, axis="y")
    right.set_title("False-FAIL budget spent")
    right.set_xlabel("share of the plan")
    return _svg(figure, "boundary", "Test statistics against the bounds of each look")


def _extras(entry: Mapping[str, Any]) -> int:
    return max((sum(p["kind"] == "extra" for p in g["points"]) for g in entry["gates"]), default=0)


def _clipped(value: float | None, unit: float) -> float:
    """In margins, inside the drawing; no bound at all is the far end."""
    if value is None:
        return _FARTHEST
    return min(max(value / unit, -_FARTHEST), _FARTHEST)


def _signed(gate: Mapping[str, Any], key: str) -> str:
    value = gate[key]
    if value is None:
        return "?"
    if gate["scale"] != "log ratio":
        return f"{100.0 * value:+.2f} pp"
    if value > math.log(11.0):
        return ">+1000 %"
    return f"{100.0 * math.expm1(value):+.1f} %"


def _percent_ticks(value: float, _position: object) -> str:
    return f"{value:+.3g} %" if value else "0"


def _changes(values: Sequence[float | None]) -> list[float]:
    return [math.nan if v is None else 100.0 * (v - 1.0) for v in values]


def _telling(entry: Mapping[str, Any]) -> list[int]:
    """Edges between which the shares of an arm move, and one on either side."""
    shares = list(zip(entry["canary"]["share"], entry["stable"]["share"], strict=True))
    inside = [i for i, pair in enumerate(shares) if max(pair) > 0.002 and min(pair) < 0.998]  # noqa: PLR2004
    if not inside:
        return list(range(len(shares)))
    return list(range(max(inside[0] - 1, 0), min(inside[-1] + 2, len(shares))))


def _seconds(entry: Mapping[str, Any]) -> bool:
    return "tokens" not in entry["metric"]


def _log_ticks(edges: Sequence[float], unit: str) -> tuple[list[float], list[str]]:
    """Those of the edges that are far enough apart for their labels, with these."""
    apart = (math.log(edges[-1]) - math.log(edges[0])) / 5.5
    ticks = [edges[0]]
    for edge in edges[1:]:
        if math.log(edge) - math.log(ticks[-1]) >= apart:
            ticks.append(edge)
    if not unit:
        return ticks, [f"{t:g}" for t in ticks]
    return ticks, [f"{1000.0 * t:g} ms" if t < 1.0 else f"{t:g} s" for t in ticks]


def _svg(figure: Figure, name: str, label: str) -> str:
    """The drawing as an inline element: no prologue, own ids, colours of the page."""
    out = io.StringIO()
    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(False)
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for variable, colour in _COLOURS.items():
        text = text.replace(colour, f"var(--{variable})")
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    text = re.sub(r"'DejaVu Sans'(?:, sans-serif)?|DejaVu Sans", _FONT, text)
    head = f'<svg role="img" aria-label="{_escaped(label)}" '
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return text.replace("<svg ", head, 1).strip()


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


def styled(draw: Callable[[], list[str]]) -> list[str]:
    """What ``draw`` draws, in the report's style whatever the user's matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        return draw()
