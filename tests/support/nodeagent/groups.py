"""The containers of one pod that run as processes, and the order in which they end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from support.nodeagent.runners import ContainerRunner


class RunnerGroup:
    """Runners by container name; true when there is one."""

    def __init__(self, sidecars: Sequence[str]) -> None:
        """``sidecars``: names of the init containers that run beside the others, in order."""
        self._sidecars = sidecars
        self._runners: dict[str, ContainerRunner] = {}

    def __bool__(self) -> bool:
        return bool(self._runners)

    def add(self, runner: ContainerRunner) -> None:
        """Take one in."""
        self._runners[runner.name] = runner

    def kill(self) -> None:
        """Kill them all at once."""
        for runner in self._runners.values():
            runner.kill()

    async def stop(self, grace_s: float) -> None:
        """Main containers together, then sidecars in reverse, within one grace period."""
        loop = asyncio.get_running_loop()
        until = loop.time() + grace_s
        mains = [self._runners[name] for name in self._runners.keys() - set(self._sidecars)]
        await asyncio.gather(*(runner.stop(grace_s) for runner in mains))
        await self.stop_sidecars(max(0.0, until - loop.time()))

    async def stop_sidecars(self, grace_s: float) -> None:
        """Sidecars one after the other, the last one first."""
        for name in reversed(self._sidecars):
            if name in self._runners:
                await self._runners[name].stop(grace_s)
