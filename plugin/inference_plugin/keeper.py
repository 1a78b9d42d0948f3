"""Keeps the traffic of one Rollout where it was commanded.

A keeper is level-based: it holds the last command, and each pass compares it with the cluster
and takes the next step. Passes run when the controller calls, when something it waits for
changes, and when a time is over. What it forgets in a restart, the objects and the controller's
next call tell it again.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import structlog

from inference_common.errors import KubeError
from inference_common.kube import ROLLOUT
from inference_plugin.config import parse_config
from inference_plugin.destinations import UnknownRevisionError
from inference_plugin.drift import DriftWatch
from inference_plugin.errors import (
    ConfigError,
    ConflictError,
    HoldingError,
    PluginError,
    StaleError,
)
from inference_plugin.holding import Holding
from inference_plugin.planning import Decision, managed_objects, plan
from inference_plugin.releasing import Releaser
from inference_plugin.revisions import Revisions
from inference_plugin.rollouts import (
    Command,
    belongs_on_stable,
    is_being_deleted,
    spec_of,
    step_weight,
)
from inference_plugin.shares import Weighting
from inference_plugin.telling import Teller
from inference_plugin.writing import Together, Writer

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference_plugin.rollouts import RolloutKey, RolloutSpec
    from inference_plugin.shares import Hashes
    from inference_plugin.tools import Tools

Object = dict[str, Any]
_log = structlog.get_logger(__name__)

_PASSES: Final = 10
"""Most plans for one command in a row: a normal one needs up to four, each conflict one more."""
_HOLD_WAIT_S: Final = 3.5
_VERIFY_MARGIN_S: Final = 2.5
_WAIT_LIMIT_S: Final = 6.0
"""Every wait inside a call stays well under the bridge's deadline of 8 s."""
_FIRST_DELAY_S: Final = 0.2
_LAST_DELAY_S: Final = 10.0


class Keeper:
    """The level-based loop for one Rollout."""

    def __init__(self, key: RolloutKey, tools: Tools) -> None:
        """Prepare; the background loop starts with ``start``."""
        self.key = key
        self._tools = tools
        self._teller = Teller(key, tools)
        self._writer = Writer(tools)
        self._drift = DriftWatch(key, tools, self._writer, self._teller)
        self._releaser = Releaser(key, tools, self._writer, self._teller)
        self._revisions = Revisions(key, tools.cluster)
        self._holding = Holding()
        self._command: Command | None = None
        self._settled = True
        self._changed = asyncio.Event()
        self._waiting = 0
        self._task: asyncio.Task[None] | None = None
        self._log = _log.bind(rollout=str(key))

    def start(self) -> None:
        """Begin to look after the Rollout in the background."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(
                self._run(), name=f"keep {self.key}"
            )

    async def stop(self) -> None:
        """End the background loop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def discard(self, uid: str) -> None:
        """End the background loop for good: the Rollout is gone, or is routed here no longer."""
        self._tools.recorder.clear(uid)
        if self._task is not None:
            self._task.cancel()

    @property
    def config(self) -> bytes:
        """The configuration of the last command, empty before the first one."""
        return self._command.spec.config if self._command else b""

    @property
    def is_active(self) -> bool:
        """Whether something is still to be done or waited for."""
        return self._waiting > 0 or not self._settled

    def wake(self) -> None:
        """Something changed: look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    # The controller's calls

    async def update_hash(self, spec: RolloutSpec, hashes: Hashes) -> None:
        """Remember the pair that the controller means; read the Rollout if it is news.

        Never writes, never fails for the state of the cluster.
        """
        await self._revisions.note(spec, hashes)

    async def set_weight(
        self, spec: RolloutSpec, weighting: Weighting, generation: int, version: str = ""
    ) -> None:
        """Move the traffic, or its next safe part.

        ``version`` is the resourceVersion of the Rollout that the controller works from.
        Raises ConfigError, StaleError, ConflictError, HoldingError and KubeError.
        """
        command = await self._revisions.command(spec, weighting, generation, version)
        if self._is_overtaken(command):
            raise StaleError(
                f"Weight {weighting.desired} was asked for, but Rollout {self.key} is aborted or "
                "fully promoted. The next call is tried again."
            )
        self._command = command
        self._settled = False
        decision = await self._steer(command, avoided=True)
        if decision is not None:
            decision = await self._wait(
                command, decision, lambda found: found.hold is None, _HOLD_WAIT_S
            )
        if decision is None:
            raise StaleError(
                f"Rollout {self.key} was aborted, promoted or changed while its weights were being "
                "written. The next call is tried again."
            )
        self._settled = decision.done
        if not decision.done:
            self.wake()
        if decision.hold is None:
            self._holding.end()
        elif self._holding.allows(command.hashes, parse_config(spec.config).holdSeconds):
            raise HoldingError(
                f"Holding the pods of Rollout {self.key}: {decision.hold.message} This passes by "
                "itself, at the latest after holdSeconds."
            )
        else:
            self._teller.standing(
                spec.uid,
                "HoldExpired",
                f"Went on without waiting any longer: {decision.hold.message}",
            )

    async def verify_weight(self, spec: RolloutSpec, weighting: Weighting, generation: int) -> bool:
        """Whether the traffic is where it was commanded; waits briefly for what comes soon."""
        command = await self._revisions.command(spec, weighting, generation, hinted=False)
        config = parse_config(spec.config)
        limit_s = min(config.settleSeconds + _VERIFY_MARGIN_S, _WAIT_LIMIT_S)
        # Without a command of SetWeight since the start this one is it; another one would mean
        # that a later wish has come in between, which must not be undone.
        known = self._command
        if known is None or (known.hashes, known.weighting) != (command.hashes, weighting):
            if known is not None:
                return False
            self._command = command
        if self._eased(command) is not command:
            # What the controller believes to be the weight has been lowered ahead of it.
            return False
        decision = await self._steer(self._command or command)
        if decision is not None:
            decision = await self._wait(
                self._command or command, decision, lambda found: found.verified, limit_s
            )
        if decision is None:
            return False
        self._teller.progress(command, decision)
        return decision.verified

    # The level-based part

    async def _run(self) -> None:
        delay_s = _FIRST_DELAY_S
        while True:
            changed = self._changed
            failed = True
            retry_s: float | None = None
            try:
                retry_s = await self._pass()
                failed = False
            except ConfigError as error:
                # The next call of the controller reports it again, with the same words.
                if self._command is not None:
                    self._teller.problem(self._command.spec.uid, error)
                self._settled = True
                failed = False
            except (KubeError, PluginError) as error:
                self._log.warning("will try again", error=str(error), retry_s=delay_s)
            except Exception:  # noqa: BLE001 - the loop must outlive a bug in one pass
                self._tools.metrics.failures.labels("keeper").inc()
                self._log.exception("internal error")
            if failed:
                # Whatever changes meanwhile: what failed is not tried again in a tight loop.
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, _LAST_DELAY_S)
                continue
            delay_s = _FIRST_DELAY_S
            try:
                async with asyncio.timeout(retry_s):
                    await changed.wait()
            except TimeoutError:
                continue

    async def _pass(self) -> float | None:
        """One look at the Rollout; returns when to look again even if nothing changes."""
        cluster = self._tools.cluster
        rollout = cluster.get(ROLLOUT, self.key.namespace, self.key.name)
        if rollout is None or is_being_deleted(rollout):
            self._settled = True
            return None
        spec = spec_of(rollout)
        hashes = self._revisions.of(rollout)
        if spec is None or hashes is None:
            self._settled = True
            return None
        await self._learn(spec)
        await self._give_up_strays(rollout, spec)
        drift_retry_s = await self._drift.mend(spec)
        command = self._wanted(rollout, spec, hashes)
        if command is None:
            self._settled = True
            return drift_retry_s
        # A call of the controller may bring another command while this one waits for a lock.
        self._command = command
        self._settled = False
        decision = await self._steer(command)
        if decision is None:
            return 0.0
        self._settled = decision.done
        if command.own and decision.waits:
            self._teller.progress(command, decision)
        retries = [at for at in (decision.retry_s, drift_retry_s) if at is not None]
        return min(retries, default=None)

    async def _give_up_strays(self, rollout: Object, spec: RolloutSpec) -> None:
        """Release objects that the configuration no longer names, once it is a valid one."""
        cluster = self._tools.cluster
        if not cluster.carriers(str(self.key)):
            return
        config = parse_config(spec.config)
        keep = managed_objects(spec, config, self._tools.permissions, cluster)
        if all(cluster.get(*where) is not None for where in keep):
            pools = config.inferencePools or ()
            await self._releaser.release(spec.uid, rollout, config, keep=keep, keep_pools=pools)

    def _wanted(self, rollout: Object, spec: RolloutSpec, hashes: Hashes) -> Command | None:
        """What a pass works for.

        Traffic back to stable if it belongs there, else the last command as long as it is about
        the same revisions.
        """
        command = self._command
        if command is not None and (
            command.hashes != hashes or command.spec.uid != rollout["metadata"]["uid"]
        ):
            command = None
        if command is not None and parse_config(command.spec.config) != parse_config(spec.config):
            # The same wish for other objects: what the old ones carried has just been given up.
            command = replace(command, spec=spec)
        if not belongs_on_stable(rollout):
            return command
        if command is not None and command.weighting.desired == 0:
            return command
        if command is None and not self._drift.entries(spec):
            # Nothing is written before the controller has asked for something once.
            return None
        return Command(
            spec=spec,
            hashes=hashes,
            weighting=Weighting(desired=0, additional={}, maximum=spec.max_weight),
            own=True,
        )

    def _is_overtaken(self, command: Command) -> bool:
        """Whether the Rollout has meanwhile been aborted, promoted, or given other revisions."""
        rollout = self._tools.cluster.get(ROLLOUT, self.key.namespace, self.key.name)
        if rollout is None or rollout["metadata"]["uid"] != command.spec.uid:
            return False
        if belongs_on_stable(rollout) and command.weighting.desired:
            return True
        return bool(command.weighting.desired) and self._revisions.of(rollout) != command.hashes

    def _eased(self, command: Command) -> Command:
        """The command, or the lower weight of the step that the Rollout has already gone on to.

        The controller asks for it only once it has scaled the canary down (see ``step_weight``).
        """
        rollout = self._tools.cluster.get(ROLLOUT, self.key.namespace, self.key.name)
        lower = None if rollout is None or command.own else step_weight(rollout)
        if lower is None or lower >= command.weighting.desired:
            return command
        return replace(command, weighting=replace(command.weighting, desired=lower))

    async def _learn(self, spec: RolloutSpec) -> None:
        """Have the cluster look up the kind that the configuration names, if it names one."""
        listed = parse_config(spec.config).modelList
        if listed is not None:
            await self._tools.cluster.learn(listed)

    async def _steer(self, command: Command, *, avoided: bool = False) -> Decision | None:
        """Plan and write until nothing is left to write now.

        None when another command took this one's place, or the Rollout overtook it: what waited
        for a lock or for the gateway must not undo what was wished since.
        """
        cluster = self._tools.cluster
        config = parse_config(command.spec.config)
        await self._learn(command.spec)
        objects = managed_objects(command.spec, config, self._tools.permissions, cluster)
        asked: set[str] = set()
        writes = self._together(command)
        wrote = False
        async with self._tools.locks.hold(objects):
            for _ in range(_PASSES):
                if self._command is not command or self._is_overtaken(command):
                    return None
                try:
                    decision = plan(
                        self._eased(command),
                        cluster,
                        now=time.time(),
                        permissions=self._tools.permissions,
                    )
                except UnknownRevisionError as error:
                    if error.pod_template_hash in asked:
                        raise
                    asked.add(error.pod_template_hash)
                    await cluster.refresh_revision(error.namespace, error.pod_template_hash)
                    continue
                if not decision.writes:
                    if avoided and not wrote:
                        self._tools.metrics.writes_avoided.inc()
                    return decision
                wrote = await writes.carry_out(decision) or wrote
        raise ConflictError(
            f"{', '.join(write.summary for write in decision.writes)}: the object changed under "
            f"each of {_PASSES} attempts to write it. It is tried again with the next call; look "
            "for another controller that writes it."
        )

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

    def problem(self, spec: RolloutSpec, error: PluginError) -> None:
        """Put an error that was answered to the controller on the Rollout as an Event."""
        self._teller.problem(spec.uid, error)

    async def _wait(
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
                found = await self._steer(command)
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


def _is_soon(decision: Decision) -> bool:
    """Whether what is missing belongs to every healthy step: gateway and settling, not pods."""
    return all(wait.quiet for wait in decision.waits)
