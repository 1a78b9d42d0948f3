"""Size, memory and price of the bridge: ``python -m bench.bridge``, with tests/ on the path.

The hop is measured by the Go benchmark beside the bridge, which is a controller to it: Argo's own
client on one side, a server that does nothing on the other.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from bench.figures import Figure, show
from support.toolchain import ensure
from support.toolchain.build import go_command, go_environment
from support.toolchain.recipe import RECIPES

SOURCE = Path(__file__).resolve().parents[2] / "plugin/bridge"
CALLS = 5000
LIMIT_MB = 30.0


def bridge_figures() -> list[Figure]:
    """Figures of the binary that the toolchain has built, and of 5000 calls."""
    others = [recipe.name for recipe in RECIPES if recipe.name != "bridge"]
    size = ensure(without=others).binary("bridge").stat().st_size / 1e6
    hop, alone = _benchmark()
    return [
        Figure(
            what="bridge, size of the binary",
            value=f"{size:.1f} MB",
            aim=f"< {LIMIT_MB:.0f} MB",
            met=size < LIMIT_MB,
        ),
        Figure(
            what="bridge, memory after the calls",
            value=f"{hop['RSS-MiB']:.0f} MiB",
            note="resident, of the test binary",
        ),
        Figure(
            what="call through the bridge, p50 / p99",
            value=_p50_p99(hop),
            note=f"SetWeight, a Rollout of {hop['rollout-KiB']:.0f} KiB, null server",
        ),
        Figure(what="the same without the bridge, p50 / p99", value=_p50_p99(alone)),
    ]


def _p50_p99(result: dict[str, float]) -> str:
    return f"{result['p50-us'] / 1000:.2f} / {result['p99-us'] / 1000:.2f} ms"


def _benchmark() -> tuple[dict[str, float], dict[str, float]]:
    command = [go_command(), "test", "-run", "^$", "-bench", "Hop", "-benchtime", f"{CALLS}x", "."]
    done = subprocess.run(
        command, cwd=SOURCE, env=go_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"bench.bridge: the Go benchmark failed in {SOURCE}:\n{done.stdout}{done.stderr}")
    return _result(done.stdout, "controller-bridge-server"), _result(done.stdout, "grpc-alone")


def _result(output: str, name: str) -> dict[str, float]:
    """Metrics by unit of one line of ``go test -bench``: name, runs, then value and unit pairs."""
    line = re.search(rf"^BenchmarkHop/{name}(?:-\d+)?\s+\d+\s+(.*)$", output, re.MULTILINE)
    if line is None:
        sys.exit(f"bench.bridge: no result of {name} in:\n{output}")
    fields = line[1].split()
    return {unit: float(value) for value, unit in zip(fields[::2], fields[1::2], strict=True)}


if __name__ == "__main__":
    sys.exit(not show("Bridge", bridge_figures()))
