"""Error rates and power of the analysis, simulated: each row with its bar, and whether it is met.

    PYTHONPATH=tests python tests/bench/analysis_calibration.py [--runs N] [--jobs N] [NAME ...]

Seeded: a row's seed is the CRC-32 of its name, so neither other rows nor ``--jobs`` change it.
``--write`` puts the tables into docs/statistics.md, and ``--keep FILE`` keeps finished rows, so
that a run that was broken off goes on where it was. Exit code 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final, TypedDict

import numpy as np

from inference_analysis.evaluation import evaluate
from inference_analysis.ledgers import Ledger, LookRequest
from inference_analysis.reports import document, rendered
from inference_analysis.schema import RolloutDocument
from inference_analysis.spending import critical_values
from support.analysis_bars import EIGHT, FAMILY, SCENARIOS
from support.analysis_judges import OTHERS
from support.analysis_scenarios import keeps_bar, measure
from support.analysis_simulation import Fleet
from support.analysis_single_tests import BAR, OWN, SETTINGS, rejections

PAGE: Final = Path(__file__).parents[2] / "docs/statistics.md"
BY_NAME: Final = {s.name: s for s in SCENARIOS}
SETTINGS_BY_NAME: Final = {s.name: s for s in SETTINGS}
OURS: Final = "this analysis"
PUBLISHED = (4.877, 3.357, 2.680, 2.290, 2.031)
"""Five even looks at .025 one-sided, O'Brien-Fleming type (Reboussin et al. 2000, ld98)."""
ENOUGH = 2000
"""Runs for which the bar of a single test already holds the Monte-Carlo error."""


class Row(TypedDict):
    """What one row was measured as."""

    runs: int
    rates: dict[str, float]
    seconds: float


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=1, help="processes; the figures stay the same")
    parser.add_argument("--keep", type=Path, help="file that keeps finished rows")
    parser.add_argument("--write", action="store_true", help=f"tables into {PAGE.name}")
    parser.add_argument("names", nargs="*", help="parts of names; all if none")
    given = parser.parse_args()
    names = [*BY_NAME, *SETTINGS_BY_NAME]
    chosen = [n for n in names if not given.names or any(part in n for part in given.names)]
    before: dict[str, Row] = {}
    if given.keep and given.keep.exists():
        before = json.loads(given.keep.read_text())
    found = {name: row for name, row in before.items() if row["runs"] >= given.runs}
    with ProcessPoolExecutor(given.jobs) as pool:
        todo = [name for name in chosen if name not in found]
        for name, row in zip(todo, pool.map(measured, todo, [given.runs] * len(todo)), strict=True):
            found[name] = row
            print(f"{name}: {row['rates']} ({row['seconds']:.0f} s of CPU)", flush=True)
            if given.keep:
                given.keep.write_text(json.dumps(before | found))
    rows = {name: found[name] for name in chosen}
    tables = {"whole": whole(rows), "beside": beside(rows), "single": single(rows)}
    bars = exact() | {name: kept for name in chosen if (kept := met(name, found[name])) is not None}
    print(*(f"\n{table}" for table in tables.values()))
    if given.write and not given.names:
        page = PAGE.read_text()
        for name, table in tables.items():
            head, _, rest = page.partition(f"<!-- {name} -->\n")
            page = f"{head}<!-- {name} -->\n{table}\n{rest[rest.index('<!-- end -->') :]}"
        PAGE.write_text(page)
    for name, kept in bars.items():
        print(f"{'met' if kept else 'MISSED'}: {name}")
    missed = sum(not kept for kept in bars.values())
    print(f"{len(bars) - missed} of {len(bars)} bars met")
    sys.exit(bool(missed))


def measured(name: str, runs: int) -> Row:
    """One row, by its name."""
    begin = time.process_time()
    scenario, setting = BY_NAME.get(name), SETTINGS_BY_NAME.get(name)
    if scenario is not None:
        result = measure(scenario, runs)
        rates = {OURS: result.rate} | dict(result.others)
    else:
        assert setting is not None
        rates = rejections(setting, runs)
    return {"runs": runs, "rates": rates, "seconds": time.process_time() - begin}


def met(name: str, row: Row) -> bool | None:
    """Whether a row keeps its bar; None without one."""
    scenario = BY_NAME.get(name)
    if scenario is not None:
        return keeps_bar(scenario, row["rates"][OURS], row["runs"])
    # The bar of a single test holds the error of ENOUGH runs; fewer have a larger one.
    level = 0.05 * 0.95
    few = 2.6 * (np.sqrt(level / min(row["runs"], ENOUGH)) - np.sqrt(level / ENOUGH))
    return all(row["rates"][test] <= BAR + few for test in OWN)


def whole(rows: dict[str, Row]) -> str:
    """The whole procedure, one row a scenario."""
    lines = ["| scenario | rate | s.e. | bar | | runs |", "|---|---|---|---|---|---|"]
    for name, row in rows.items():
        scenario = BY_NAME.get(name)
        if scenario is not None:
            rate = row["rates"][OURS]
            error = float(np.sqrt(rate * (1.0 - rate) / row["runs"]))
            word = {True: "met", False: "missed", None: ""}[met(name, row)]
            cells = (name, f"{rate:.3f}", f"{error:.3f}", scenario.bar, word, str(row["runs"]))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def beside(rows: dict[str, Row]) -> str:
    """What other rules say of the same runs."""
    columns = (OURS, *OTHERS)
    lines = [f"| the same runs | {' | '.join(columns)} |", f"|{'---|' * (1 + len(columns))}"]
    for name, row in rows.items():
        scenario = BY_NAME.get(name)
        if scenario is not None and scenario.counts == "fail" and len(row["rates"]) > 1:
            lines.append(_shares(name, row, columns))
    return "\n".join(lines)


def single(rows: dict[str, Row]) -> str:
    """How often single tests reject identical versions."""
    columns = (*OWN, *OTHERS)
    heads = ("identical versions", *columns, "", "runs")
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for name, row in rows.items():
        if name in SETTINGS_BY_NAME:
            word = "met" if met(name, row) else "missed"
            lines.append(f"{_shares(name, row, columns)} {word} | {row['runs']} |")
    return "\n".join(lines)


def _shares(name: str, row: Row, columns: tuple[str, ...]) -> str:
    return f"| {' | '.join((name, *(format(row['rates'][c], '.3f') for c in columns)))} |"


def exact() -> dict[str, bool]:
    """Bars that need no chance: published bounds, equal bytes."""
    ours = critical_values(tuple(k / 5 for k in range(1, 6)), 0.025)
    far = float(np.max(np.abs(np.array(ours) - PUBLISHED)))
    data = Fleet(metrics=EIGHT, prompts=20).observe(np.random.default_rng(1))
    texts = {
        rendered(
            document(
                evaluate(
                    data,
                    FAMILY,
                    LookRequest(id="a", fraction=1.0),
                    Ledger(),
                    fingerprint="simulated",
                ),
                RolloutDocument(),
            )
        )
        for _ in range(2)
    }
    return {
        f"O'Brien-Fleming bounds differ from the published ones by {far:.4f} (≤ .001)": far <= 1e-3,
        "two verdicts on the same data are the same bytes": len(texts) == 1,
    }


if __name__ == "__main__":
    main()
