"""How long the demo takes: ``python -m bench.demo``, with tests/ on the path.

Warm is measured: a fresh cluster and the whole demo. Cold adds what the builds took when this
machine made them, which the toolchain's cache remembers.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from bench.figures import Figure, show
from support.cluster.layout import STATE_VARIABLE
from support.toolchain import ensure
from support.toolchain.ensure import BUILD_SECONDS
from support.toolchain.recipe import RECIPES

COLD_LIMIT_S = 20 * 60
BUILT = [recipe.name for recipe in RECIPES]


def demo_figures() -> list[Figure]:
    """Play the demo on a cluster of its own and read the recorded build times."""
    folders = {path.parent for path in ensure().binaries.values()}
    records = [folder / BUILD_SECONDS for folder in folders]
    recorded = [float(path.read_text()) for path in records if path.exists()]
    known = len(recorded) == len(BUILT)
    environment = {key: value for key, value in os.environ.items() if key != STATE_VARIABLE}
    command = [sys.executable, "-m", "support.cluster", "exec", "--"]
    command += [sys.executable, "-m", "support.demo"]
    started = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    warm_s = time.monotonic() - started
    if done.returncode != 0:
        sys.exit(f"bench.demo: the demo failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return [
        Figure(
            what="demo, everything built",
            value=f"{warm_s:.0f} s",
            note="start of the cluster, six canaries with traffic, clean stop",
        ),
        Figure(
            what="demo, components built first",
            value=f"{(sum(recorded) + warm_s) / 60:.1f} min" if known else "not known",
            aim=f"< {COLD_LIMIT_S // 60} min",
            note=f"{len(recorded)} of {len(BUILT)} builds recorded here: {sum(recorded):.0f} s",
            met=not known or sum(recorded) + warm_s < COLD_LIMIT_S,
        ),
    ]


if __name__ == "__main__":
    sys.exit(not show("Demo", demo_figures()))
