"""Carries one command out: plan and write, until nothing is left to write now, and wait."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from inference_common.kube import ROLLOUT
from inference_plugin.carriers import managed_objects
from inference_plugin.config import parse_config
from inference_plugin.destinations import UnknownRevisionError
from inference_plugin.errors import ConflictError
from inference_plugin.footprints import Footprint
from inference_plugin.planning import plan
from inference_plugin.rollouts import belongs_on_stable, step_weight
from inference_plugin.writing import Together, Writer

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference_plugin.decisions import Decision
    from inference_plugin.revisions import Revisions
    from inference_plugin.rollouts import Command, RolloutKey, RolloutSpec
    from inference_plugin.telling import Teller
    from inference_plugin.tools import Tools

Object = dict[str, Any]
_PASSES: Final = 10
"""Most plans for one command in a row: a normal one needs up to four, each conflict one more."""


class Steering:
    """Takes the traffic of one Rollout to where a command wants it."""

    def __init__(
        self,
        key: RolloutKey,
        tools: Tools,
        writer: Writer,
        teller: Teller,
        revisions: Revisions,
    ) -> None:
        """Work with these tools."""
        self._key = key
        self._tools = tools
        self._writer = writer
        self._teller = teller
        self._revisions = revisions
        self._command: Command | None = None
        self._changed = asyncio.Event()
        self._waiting = 0
        self._stands: tuple[Command, Decision] | None = None

    @property
    def command(self) -> Command | None:
        """The command that is being carried out, None before the first one."""
        return self._command

    def take(self, command: Command) -> None:
        """Work for this command from now on: what still works for another one stops."""
        self._command = command

    @property
    def is_waiting(self) -> bool:
        """Whether a call waits for something to change."""
        return self._waiting > 0

    @property
    def changed(self) -> asyncio.Event:
        """Set with the next ``wake``."""
        return self._changed

    def forget(self) -> None:
        """What the last plan looked at has changed: its outcome counts no more."""
        self._stands = None

    def wake(self) -> None:
        """Something changed: look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def steer(self, command: Command, *, avoided: bool = False) -> Decision | None:
        """Plan and write until nothing is left to write now.

        None when another command took this one's place, or the Rollout overtook it: what waited
        for a lock or for the gateway must not undo what was wished since.
        """
        if self._stands is not None and self._stands[0] == self.eased(command):
            # Nothing that this plan looked at has changed since, and it waits for no time.
            decision = None if self._is_off(command) else self._stands[1]
            wrote = False
        else:
            decision, wrote = await self._carry_out(command)
        if avoided and decision is not None and not wrote:
            self._tools.metrics.writes_avoided.inc()
        return decision

    async def _carry_out(self, command: Command) -> tuple[Decision | None, bool]:
        """As ``steer``, and whether anything was written."""
        cluster = self._tools.cluster
        config = parse_config(command.spec.config)
        await self.learn(command.spec)
        objects = managed_objects(command.spec, config, self._tools.permissions, cluster)
        asked: set[str] = set()
        writes = self._together(command)
        wrote = False
        async with self._tools.locks.hold(objects):
            for _ in range(_PASSES):
                if self._is_off(command):
                    return None, wrote
                try:
                    decision = self._plan(self.eased(command))
                except UnknownRevisionError as error:
                    if error.pod_template_hash in asked:
                        raise
                    asked.add(error.pod_template_hash)
                    await cluster.refresh_revision(error.namespace, error.pod_template_hash)
                    continue
                if not decision.writes:
                    return decision, wrote
                wrote = await writes.carry_out(decision) or wrote
        raise ConflictError(
            f"{', '.join(write.summary for write in decision.writes)}: the object changed under "
            f"each of {_PASSES} attempts to write it. It is tried again with the next call; look "
            "for another controller that writes it."
        )

    def _plan(self, wish: Command) -> Decision:
        """Plan, and keep what was looked at; and an outcome that only objects can change."""
        seen = Footprint(self._tools.cluster)
        self._stands = None
        try:
            decision = plan(wish, seen, now=time.time(), permissions=self._tools.permissions)
        finally:
            self._tools.interests.note(self._key, seen.marks)
        if not decision.writes and not decision.notes and decision.retry_s is None:
            self._stands = (wish, decision)
        return decision

    def _is_off(self, command: Command) -> bool:
        """Whether another command took this one's place, or the Rollout overtook it."""
        return self._command is not command or self.is_overtaken(command)

    async def wait(
        self,
        command: Command,
        decision: Decision,
        is_enough: Callable[[Decision], bool],
        limit_s: float,
    ) -> Decision | None:
        """Look again on each change while what is missing is expected within the limit."""
        if is_enough(decision) or not _is_soon(decision) or not self._tools.slots.take():
            return decision
        self._waiting += 1
        end = time.monotonic() + limit_s
        try:
            while not is_enough(decision) and _is_soon(decision):
                left_s = end - time.monotonic()
                if left_s <= 0:
                    break
                changed = self._changed
                found = await self.steer(command)
                if found is None:
                    return None
                decision = found
                if is_enough(decision):
                    break
                retry_s = left_s if decision.retry_s is None else decision.retry_s
                try:
                    async with asyncio.timeout(min(retry_s, left_s)):
                        await changed.wait()
                except TimeoutError:
                    continue
        finally:
            self._waiting -= 1
            self._tools.slots.give_back()
        return decision

    def is_overtaken(self, command: Command) -> bool:
        """Whether the Rollout has meanwhile been aborted, promoted, or given other revisions."""
        rollout = self._tools.cluster.get(ROLLOUT, self._key.namespace, self._key.name)
        if rollout is None or rollout["metadata"]["uid"] != command.spec.uid:
            return False
        if belongs_on_stable(rollout) and command.weighting.away:
            return True
        return bool(command.weighting.away) and self._revisions.of(rollout) != command.hashes

    def eased(self, command: Command) -> Command:
        """The command, or the lower weight of the step that the Rollout has already gone on to.

        The controller asks for it only once it has scaled the canary down (see ``step_weight``).
        """
        rollout = self._tools.cluster.get(ROLLOUT, self._key.namespace, self._key.name)
        lower = None if rollout is None or command.own else step_weight(rollout)
        if lower is None or lower >= command.weighting.desired:
            return command
        return replace(command, weighting=replace(command.weighting, desired=lower))

    async def learn(self, spec: RolloutSpec) -> None:
        """Have the cluster look up the kind that the configuration names, if it names one."""
        listed = parse_config(spec.config).modelList
        if listed is not None:
            await self._tools.cluster.learn(listed)

    def _together(self, command: Command) -> Together:
        """The writes that this command will take."""
        return Together(
            self._writer,
            self._tools.cluster,
            told=lambda write, decision: self._teller.written(command, write, decision),
            restored=lambda change, why: self._teller.change(
                command.spec.uid,
                "WeightsRestored",
                f"{change}; taken back, because another object of the same step was refused: {why}",
                warning=True,
            ),
        )


def _is_soon(decision: Decision) -> bool:
    """Whether what is missing belongs to every healthy step: gateway and settling, not pods."""
    return all(wait.quiet for wait in decision.waits)
