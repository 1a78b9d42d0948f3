"""Time and memory of one verdict, interpreter start included, against the stated bars.

PYTHONPATH=analysis:tests python tests/bench/analysis_speed.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from inference_analysis.evaluation import evaluate
from inference_analysis.ledgers import Ledger, LookRequest
from inference_analysis.policies import Policy
from support.analysis_simulation import TTFT, Fleet, cells

NAMES = ("ttft", "tpot", "itl", "e2e", "queue", "decode", "prefill", "prompt", "output", "total")
COMMAND = "from inference_common.command import main; main()"
CASES = (
    # stable pods, metrics, bars: seconds in all, seconds of statistics, MiB
    ("24 pods x 5 metrics x 120 windows", 1, 5, 2.0, 0.3, 1024),
    ("1,000 pods x 10 metrics x 120 windows", 40, 10, 10.0, None, 1024),
)
CANARY, STABLE = 4, 20


def written(path: Path, repeats: int, metrics: int) -> None:
    """A file of ``repeats`` fleets side by side; only the first has canary pods beside stable."""
    rng = np.random.default_rng(1)
    with path.open("w") as out:
        for part in range(repeats):
            fleet = Fleet(
                canary=CANARY if not part else 1,
                stable=STABLE if not part else STABLE + CANARY,
                windows=120,
                requests=60.0,
                metrics=dict.fromkeys(NAMES[:metrics], TTFT),
            )
            content = cells(fleet.observe(rng))
            pods = content.pop("pods")
            assert isinstance(pods, list)
            for pod in pods:
                pod["name"] = f"{part}-{pod['name']}"
            if not part:
                out.write(json.dumps(content)[:-1] + ', "pods": [')
            out.write(", " * bool(part) + json.dumps(pods)[1:-1])
        out.write("]}")


def statistics_s(metrics: int) -> float:
    """Seconds that the statistics of one look take."""
    fleet = Fleet(
        canary=CANARY,
        stable=STABLE,
        windows=120,
        metrics=dict.fromkeys(NAMES[:metrics], TTFT),
    )
    data = fleet.observe(np.random.default_rng(1))
    begin = time.process_time()
    evaluate(data, Policy(), LookRequest(id="a", fraction=1.0), Ledger(), fingerprint="a")
    return time.process_time() - begin


def main() -> None:
    """Print one line a case."""
    print("| input | file | CPU | bar | memory | bar | statistics | bar |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, repeats, metrics, bar_s, bar_statistics, bar_mib in CASES:
            path = Path(folder) / "cells.json"
            written(path, repeats, metrics)
            argv = [sys.executable, "-c", COMMAND, "analysis", "evaluate", str(path)]
            process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            took = usage.ru_utime + usage.ru_stime
            parts = [name, f"{path.stat().st_size / 2**20:.0f} MiB", f"{took:.2f} s"]
            parts += [f"{bar_s:g} s", f"{usage.ru_maxrss / 1024:.0f} MiB", f"{bar_mib} MiB"]
            if bar_statistics is not None:
                parts += [f"{statistics_s(metrics):.3f} s", f"{bar_statistics:g} s"]
            else:
                parts += ["", ""]
            print(f"| {' | '.join(parts)} |", flush=True)


if __name__ == "__main__":
    main()
