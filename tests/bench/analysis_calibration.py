"""Error rates and power of the analysis, simulated: one row a scenario, with its stated bar.

    PYTHONPATH=analysis:tests python tests/bench/analysis_calibration.py [--runs N] [NAME ...]

Seeded; docs/statistics.md holds the tables of a long run.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from support.analysis_scenarios import (
    JUDGES,
    OTHERS,
    SCENARIOS,
    SETTINGS,
    SIDE_BY_SIDE,
    Scenario,
    keeps_bar,
    rate,
    rejections,
    side_by_side,
)


def main() -> None:  # noqa: C901 - three tables
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--table", choices=["scenarios", "tests", "others"])
    parser.add_argument("names", nargs="*", help="parts of names; all if none")
    given = parser.parse_args()

    def wanted(name: str) -> bool:
        return not given.names or any(part in name for part in given.names)

    if given.table in {None, "scenarios"}:
        print("| scenario | rate | s.e. | bar | kept | s |\n|---|---|---|---|---|---|")
        for scenario in SCENARIOS:
            if wanted(scenario.name):
                print(scenario_row(scenario, given.runs), flush=True)
        print()
    if given.table in {None, "others"}:
        columns = ("this analysis", *OTHERS)
        print(f"| the same runs | {' | '.join(columns)} |\n|{'---|' * (1 + len(columns))}")
        for scenario in SCENARIOS:
            if scenario.name in SIDE_BY_SIDE and wanted(scenario.name):
                print(row(scenario.name, side_by_side(scenario, given.runs)), flush=True)
        print()
    if given.table in {None, "tests"}:
        print(f"| identical versions, one look | {' | '.join(JUDGES)} |")
        print(f"|{'---|' * (1 + len(JUDGES))}")
        for setting in SETTINGS:
            if wanted(setting.name):
                print(row(setting.name, rejections(setting, given.runs)), flush=True)


def row(name: str, found: dict[str, float]) -> str:
    """One row of rates."""
    return f"| {name} | {' | '.join(f'{value:.3f}' for value in found.values())} |"


def scenario_row(scenario: Scenario, runs: int) -> str:
    """One row of the first table."""
    begin = time.process_time()
    found = rate(scenario, runs)
    error = np.sqrt(found * (1.0 - found) / runs)
    bar = ""
    if scenario.at_most is not None:
        bar = f"<= {scenario.at_most:g}"
    elif scenario.at_least is not None:
        bar = f">= {scenario.at_least:g}"
    kept = {True: "yes", False: "NO", None: ""}[keeps_bar(scenario, found, runs)]
    seconds = time.process_time() - begin
    return f"| {scenario.name} | {found:.3f} | {error:.3f} | {bar} | {kept} | {seconds:.0f} |"


if __name__ == "__main__":
    main()
