"""The picker behind a real Envoy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio
import uvloop

from support.picker_rig import MODES, RECOMMENDED, Setup, running_setup

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    import pytest


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the command runs on, which is not asyncio's own in everything."""
    return {"uvloop": uvloop.new_event_loop}


@pytest_asyncio.fixture(params=MODES)
async def any_mode(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Setup]:
    """The set-up behind each of the gateway's possible modes."""
    async with running_setup(tmp_path, MODES[request.param]) as setup:
        yield setup


@pytest_asyncio.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Setup]:
    """The set-up in the recommended mode."""
    async with running_setup(tmp_path, RECOMMENDED) as found:
        yield found


@pytest_asyncio.fixture(params=["recommended", "full-duplex", "streamed"])
async def any_streaming_mode(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Setup]:
    """The set-up behind each mode in which answers reach the client as they are made."""
    async with running_setup(tmp_path, MODES[request.param]) as setup:
        yield setup
