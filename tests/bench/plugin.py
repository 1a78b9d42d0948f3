"""``make bench-plugin``: speed and size of the plugin as one table, on a running cluster.

The second table of that target, how the server grows with the number of Rollouts, is of
``bench.plugin_scale``: it needs a cluster without a controller.
"""

from __future__ import annotations

import asyncio
import sys

from bench.bridge import bridge_figures
from bench.demo import demo_figures
from bench.figures import Figure, show
from bench.plugin_calls import plugin_figures
from bench.shift import shift_figures
from support.cluster.client import ClusterClient


async def _figures() -> list[Figure]:
    cluster = ClusterClient.load()
    # One after the other: each would disturb the others' times.
    return [
        *await plugin_figures(cluster),
        *await shift_figures(cluster),
        *await asyncio.to_thread(bridge_figures),
        *await asyncio.to_thread(demo_figures),
    ]


if __name__ == "__main__":
    sys.exit(not show("Plugin", asyncio.run(_figures())))
