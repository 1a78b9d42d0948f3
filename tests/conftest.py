"""The shared cluster, and a namespace of its own for each test that asks for a scenario."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from support.cluster.client import ClusterClient
from support.ports import reserved_port
from support.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# Properties are about values: neither a busy machine nor a new random example may fail a change
# that has nothing to do with them. `make unit-random` looks for new examples.
_UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("steady", _UNTIMED, derandomize=True, database=None)
settings.register_profile("random", _UNTIMED, derandomize=False, print_blob=True)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def cluster() -> ClusterClient:
    """The cluster that `python -m support.cluster exec` started."""
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


@pytest.fixture
def unused_tcp_port() -> int:
    """A port that nobody else gets, in place of pytest-asyncio's, which anybody may."""
    return reserved_port()
