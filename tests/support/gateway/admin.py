"""What Envoy says, on its admin interface, that it has taken."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import aiohttp

if TYPE_CHECKING:
    from support.gateway.xds import Versions

_QUERY: Final = {"filter": r"(version_text|update_rejected|update_failure)$"}
_LINE: Final = re.compile(r"^(?P<name>.+)\.(?P<stat>[a-z_]+): (?P<value>.*)$")
_FIRST_POLL_S: Final = 0.003
_LAST_POLL_S: Final = 0.1


class EnvoyUnreachable(Exception):  # noqa: N818 - it names a state of Envoy
    """The admin interface did not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """State of one subscription: the version in force, and how many were refused."""

    version: str = ""
    refused: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Which of the awaited subscriptions are in force, refused, or neither in time."""

    taken: frozenset[str]
    refused: frozenset[str] = frozenset()
    pending: frozenset[str] = frozenset()


def parse(text: str) -> dict[str, Subscription]:
    """Parse the text form of ``/stats``, by subscription prefix."""
    versions: dict[str, str] = {}
    refused: dict[str, int] = {}
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        name, stat, value = found["name"], found["stat"], found["value"]
        if stat == "version_text":
            versions[name] = value.strip('"')
        elif stat in {"update_rejected", "update_failure"}:
            refused[name] = refused.get(name, 0) + int(value)
    return {
        name: Subscription(version=versions.get(name, ""), refused=refused.get(name, 0))
        for name in versions.keys() | refused.keys()
    }


@dataclass(slots=True)
class EnvoyAdmin:
    """A client of one admin interface."""

    url: str
    session: aiohttp.ClientSession
    _seen: dict[str, Subscription] = field(default_factory=dict)

    async def subscriptions(self) -> dict[str, Subscription]:
        """All subscriptions. Raises EnvoyUnreachable."""
        try:
            async with self.session.get(
                f"{self.url}/stats", params=_QUERY, timeout=aiohttp.ClientTimeout(total=2)
            ) as response:
                return parse(await response.text())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise EnvoyUnreachable(
                f"no answer from Envoy's admin interface at {self.url}: "
                f"{error or type(error).__name__}; is Envoy running? its log is in logs/envoy.log"
            ) from error

    async def wait_taken(
        self, wanted: Versions, timeout_s: float, *, stuck: Versions | None = None
    ) -> Taken:
        """Wait until each subscription has the wanted version in force or has refused one.

        A refusal is a counter that has grown since the last call. Versions in ``stuck`` are
        looked at, but not waited for. Raises EnvoyUnreachable.
        """
        hopeless = {name for name, version in (stuck or {}).items() if wanted.get(name) == version}
        before = self._seen
        deadline = asyncio.get_running_loop().time() + timeout_s
        delay_s = _FIRST_POLL_S
        while True:
            current = await self.subscriptions()
            taken = {name for name, version in wanted.items() if _version(current, name) == version}
            refused = {
                name
                for name in wanted.keys() - taken
                if _refused(current, name) > _refused(before, name)
            }
            pending = wanted.keys() - taken - refused
            if pending <= hopeless or asyncio.get_running_loop().time() >= deadline:
                self._seen = current
                return Taken(
                    taken=frozenset(taken),
                    refused=frozenset(refused),
                    pending=frozenset(pending),
                )
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 1.5, _LAST_POLL_S)


def _version(found: dict[str, Subscription], name: str) -> str:
    return found[name].version if name in found else ""


def _refused(found: dict[str, Subscription], name: str) -> int:
    return found[name].refused if name in found else 0
