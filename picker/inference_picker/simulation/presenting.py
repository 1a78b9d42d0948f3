"""Comparisons as tables and plots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from inference_picker.simulation.comparison import QUANTILES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from inference_picker.simulation.comparison import Row

HEADER: Final = (
    "policy            TTFT mean      p50      p99   TPOT mean    p50    p99  cached  in limits"
)


def table(rows: Sequence[Row], capacities: Mapping[str, float] | None = None) -> str:
    """A line for each policy; times in milliseconds."""
    more = "" if capacities is None else "  capacity"
    lines = [HEADER + more]
    for row in rows:
        line = (
            f"{row.policy:<16} {1e3 * row.ttft_mean:>10,.0f} {1e3 * row.ttft_p50:>8,.0f} "
            f"{1e3 * row.ttft_p99:>8,.0f} {1e3 * row.tpot_mean:>11.1f} {1e3 * row.tpot_p50:>6.1f} "
            f"{1e3 * row.tpot_p99:>6.1f} {row.cached:>7.0%} {row.within:>10.1%}"
        )
        if capacities is not None:
            line += f" {capacities[row.policy]:>7.1f}/s"
        lines.append(line)
    return "\n".join(lines)


def plot(path: Path, title: str, rows: Sequence[Row]) -> None:
    """Quantiles of TTFT and TPOT, a line for each policy, to PNG, SVG or PDF."""
    # Its import takes a second; only who plots pays for it.
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for row in rows:
        for axis, values in zip(axes, (row.ttft, row.tpot), strict=True):
            axis.plot(QUANTILES, [1e3 * each for each in values], label=row.policy)
    for axis, name in zip(axes, ("time to first token", "time per output token"), strict=True):
        axis.set_yscale("log")
        axis.set_xlabel("quantile")
        axis.set_ylabel(f"{name}, ms")
        axis.grid(visible=True, alpha=0.3)
    axes[0].legend()
    figure.suptitle(title)
    figure.savefig(path)
    plt.close(figure)
