"""The shared cluster, and a namespace of its own for each test that asks for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.cluster.client import ClusterClient
from support.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture(scope="session")
def cluster() -> ClusterClient:
    """The cluster of ``make integration``, which sets INFERENCE_ROLLOUTS_CLUSTER.

    Without a cluster the test fails with the commands that start one; it is never skipped.
    """
    return ClusterClient.load()


@pytest.fixture
async def scenario(
    cluster: ClusterClient, request: pytest.FixtureRequest
) -> AsyncIterator[Scenario]:
    """A fresh namespace, deleted afterwards."""
    name = request.node.name.removeprefix("test_").split("[")[0].replace("_", "-")
    found = await Scenario.start(cluster, name)
    try:
        yield found
    finally:
        await found.stop()
