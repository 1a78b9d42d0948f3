"""Planned writes carried out: conflicts told from refusals, several objects all or restored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import structlog

from inference_common.errors import KubeError
from inference_plugin.errors import ConfigError
from inference_plugin.patches import ObjectPatch, inverse

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference_plugin.cluster import Cluster
    from inference_plugin.decisions import Decision
    from inference_plugin.patches import Write
    from inference_plugin.tools import Tools

Object = dict[str, Any]
_log = structlog.get_logger(__name__)
_ATTEMPTS: Final = 5


class Writer:
    """Writes through the cluster and counts what became of it."""

    def __init__(self, tools: Tools) -> None:
        """Write through these tools."""
        self._cluster = tools.cluster
        self._metrics = tools.metrics

    async def attempt(self, write: Write, *, dry_run: bool = False) -> bool:
        """Carry out one write; False for a conflict, after which the object is read again.

        A 409 is a conflict. A 422 is one if the object is not what the patch was made for, else
        the API server refuses the change itself, which trying again does not help.
        Raises KubeError, and ConfigError where a dry run shows what must not be written.
        """
        plural = write.resource.plural
        outcome = "dry_run" if dry_run else "ok"
        try:
            answer = await self._cluster.write(write, dry_run=dry_run)
        except KubeError as error:
            if not error.conflict and not error.invalid:
                self._metrics.writes.labels(plural, "error").inc()
                raise
            before = self._cluster.get(write.resource, write.namespace, write.name)
            await self._cluster.refresh(write.resource, write.namespace, write.name, "conflict")
            after = self._cluster.get(write.resource, write.namespace, write.name)
            if error.invalid and before == after:
                self._metrics.writes.labels(plural, "error").inc()
                raise
            self._metrics.writes.labels(plural, "conflict").inc()
            return False
        self._metrics.writes.labels(plural, outcome).inc()
        check = write.check if dry_run and isinstance(write, ObjectPatch) else None
        fault = check(answer) if check else ""
        if fault:
            raise ConfigError(fault)
        return True


class Together:
    """All writes that one command takes: they stand together, or what was before is restored.

    It lives as long as the command is planned anew after conflicts, so that a write which only
    fails in the second round takes back those of the first one too.
    """

    def __init__(
        self,
        writer: Writer,
        cluster: Cluster,
        *,
        told: Callable[[Write, Decision], None],
        restored: Callable[[str, str], None],
    ) -> None:
        """``told`` hears of each write that was made, ``restored`` of each one taken back."""
        self._writer = writer
        self._cluster = cluster
        self._told = told
        self._restored = restored
        self._done: list[tuple[ObjectPatch, Object]] = []

    async def carry_out(self, decision: Decision) -> bool:
        """Write in order, up to the first conflict; whether anything was written.

        Several objects, and rules to be made, are asked for in a dry run first. Raises KubeError
        and ConfigError, after what was written has been taken back, unless somebody else has
        changed it meanwhile.
        """
        wrote = False
        try:
            checked = any(isinstance(one, ObjectPatch) and one.check for one in decision.writes)
            if len(decision.writes) > 1 or checked:
                for write in decision.writes:
                    if not await self._writer.attempt(write, dry_run=True):
                        return False
            for write in decision.writes:
                before = self._cluster.get(write.resource, write.namespace, write.name)
                if not await self._writer.attempt(write):
                    break
                wrote = True
                self._told(write, decision)
                if isinstance(write, ObjectPatch) and before is not None:
                    self._done.append((write, before))
        except (KubeError, ConfigError) as error:
            await self._take_back(str(error))
            raise
        return wrote

    async def _take_back(self, why: str) -> None:
        for write, before in reversed(self._done):
            for _ in range(_ATTEMPTS):
                now = self._cluster.get(write.resource, write.namespace, write.name)
                patch = None if now is None else inverse(write, before, now)
                if patch is None:
                    _log.warning("not taken back: somebody else changed it", change=write.summary)
                    break
                try:
                    if await self._writer.attempt(patch):
                        self._restored(write.summary, why)
                        break
                except KubeError as error:
                    _log.warning("not taken back", change=write.summary, error=str(error))
                    break
        self._done.clear()
