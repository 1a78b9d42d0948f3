"""Keeps the traffic of one Rollout where it was commanded.

A keeper is level-based: it holds the last command, and each pass compares it with the cluster
and takes the next step. Passes run when the controller calls, when something it waits for
changes, and when a time is over. What it forgets in a restart, the objects and the controller's
next call tell it again.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import structlog

from inference_common.errors import KubeError
from inference_common.kube import ROLLOUT
from inference_plugin import commanded
from inference_plugin.config import DriftPolicy, parse_config
from inference_plugin.destinations import UnknownRevisionError
from inference_plugin.errors import (
    ConfigError,
    ConflictError,
    HoldingError,
    PluginError,
    StaleError,
)
from inference_plugin.events import Note
from inference_plugin.managed import drift_of, restore
from inference_plugin.patches import ObjectPatch
from inference_plugin.planning import Decision, Permissions, managed_objects, plan
from inference_plugin.rollouts import (
    Command,
    belongs_on_stable,
    hashes_of,
    is_being_deleted,
    spec_of,
)
from inference_plugin.shares import Hashes, Weighting
from inference_plugin.targets import WaitReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference_plugin.cluster import Cluster
    from inference_plugin.events import Recorder
    from inference_plugin.locks import ObjectLocks, WaitSlots
    from inference_plugin.patches import Write
    from inference_plugin.rollouts import RolloutKey, RolloutSpec
    from inference_plugin.telemetry import Metrics

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
_REPAIR_WINDOW_S: Final = 60.0
_REPAIRS: Final = 5
"""Repairs within the window before the keeper slows down: somebody else keeps writing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What every keeper shares."""

    cluster: Cluster
    recorder: Recorder
    metrics: Metrics
    locks: ObjectLocks
    slots: WaitSlots
    permissions: Permissions


@dataclass(slots=True)
class _Hold:
    hashes: Hashes
    since: float = field(default_factory=time.monotonic)


class Keeper:
    """The level-based loop for one Rollout."""

    def __init__(self, key: RolloutKey, tools: Tools) -> None:
        """Prepare; the background loop starts with ``start``."""
        self.key = key
        self._tools = tools
        self._command: Command | None = None
        self._settled = True
        self._changed = asyncio.Event()
        self._hint: Hashes | None = None
        self._hold: _Hold | None = None
        self._repairs: list[float] = []
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
        self._hint = hashes
        if self._hashes(spec) != hashes:
            await self._tools.cluster.refresh_rollout(self.key, "hash_mismatch")

    async def set_weight(self, spec: RolloutSpec, weighting: Weighting, generation: int) -> None:
        """Move the traffic, or its next safe part.

        Raises ConfigError, StaleError, ConflictError, HoldingError and KubeError.
        """
        command = await self._command_for(spec, weighting, generation)
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
            self._hold = None
        elif self._may_hold(command):
            raise HoldingError(
                f"Holding the pods of Rollout {self.key}: {decision.hold.message} This passes by "
                "itself, at the latest after holdSeconds."
            )
        else:
            self._standing(
                command,
                "HoldExpired",
                f"Went on without waiting any longer: {decision.hold.message}",
            )

    async def verify_weight(self, spec: RolloutSpec, weighting: Weighting, generation: int) -> bool:
        """Whether the traffic is where it was commanded; waits briefly for what comes soon."""
        command = await self._command_for(spec, weighting, generation, hinted=False)
        config = parse_config(spec.config)
        limit_s = min(config.settleSeconds + _VERIFY_MARGIN_S, _WAIT_LIMIT_S)
        # Without a command of SetWeight since the start this one is it; another one would mean
        # that a later wish has come in between, which must not be undone.
        known = self._command
        if known is None or (known.hashes, known.weighting) != (command.hashes, weighting):
            if known is not None:
                return False
            self._command = command
        decision = await self._steer(self._command or command)
        if decision is not None:
            decision = await self._wait(
                self._command or command, decision, lambda found: found.verified, limit_s
            )
        if decision is None:
            return False
        self._report(command, decision)
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
                self._tell_problem(error)
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
        hashes = self._hashes_in(rollout)
        if spec is None or hashes is None:
            self._settled = True
            return None
        listed = parse_config(spec.config).modelList
        if listed is not None:
            await cluster.learn(listed)
        drift_retry_s = await self._mend(spec)
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
            self._report(command, decision)
        retries = [at for at in (decision.retry_s, drift_retry_s) if at is not None]
        return min(retries, default=None)

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
        if not belongs_on_stable(rollout):
            return command
        if command is not None and command.weighting.desired == 0:
            return command
        if command is None and not self._was_commanded(spec):
            # Nothing is written before the controller has asked for something once.
            return None
        return Command(
            spec=spec,
            hashes=hashes,
            weighting=Weighting(desired=0, additional={}, maximum=spec.max_weight),
            own=True,
        )

    def _was_commanded(self, spec: RolloutSpec) -> bool:
        return any(entry for _, _, entry in self._entries(spec))

    def _entries(
        self, spec: RolloutSpec
    ) -> list[tuple[tuple[Any, str, str], Object, commanded.Commanded]]:
        """The managed objects that carry a commanded state of this very Rollout."""
        config = parse_config(spec.config)
        found = []
        for where in managed_objects(spec, config, self._tools.permissions, self._tools.cluster):
            obj = self._tools.cluster.get(*where)
            entry = commanded.read(obj, str(self.key)) if obj else None
            if obj and entry and entry.uid == spec.uid:
                found.append((where, obj, entry))
        return found

    async def _mend(self, spec: RolloutSpec) -> float | None:
        """Put back managed weights that somebody else changed; returns when to look again."""
        config = parse_config(spec.config)
        policy = config.drift
        for where, obj, entry in self._entries(spec):
            drift = drift_of(where[0], obj, entry, config)
            if not drift:
                self._tools.recorder.clear(spec.uid, WaitReason.DRIFT)
                continue
            text = f"{where[0].kind} {where[1]}/{where[2]} was changed by somebody else: {drift}."
            if policy is DriftPolicy.REPORT:
                if self._standing_for(spec, WaitReason.DRIFT, text):
                    self._tools.metrics.drift.labels("reported").inc()
                continue
            now = time.monotonic()
            self._repairs = [at for at in self._repairs if now - at < _REPAIR_WINDOW_S]
            if len(self._repairs) >= _REPAIRS:
                self._standing_for(
                    spec,
                    "DriftFight",
                    f"{text} Repaired {_REPAIRS} times within "
                    f"{_REPAIR_WINDOW_S:.0f} s; slowing down. Stop the other writer.",
                )
                return _REPAIR_WINDOW_S / _REPAIRS
            await self._put_back(spec, where, text)
            self._repairs.append(now)
        return None

    async def _put_back(self, spec: RolloutSpec, where: tuple[Any, str, str], text: str) -> None:
        cluster = self._tools.cluster
        async with self._tools.locks.hold([where]):
            for _ in range(_PASSES):
                obj = cluster.get(*where)
                entry = commanded.read(obj, str(self.key)) if obj else None
                if obj is None or entry is None or entry.uid != spec.uid:
                    return
                patch = restore(where[0], obj, entry, parse_config(spec.config))
                if patch is None:
                    self._standing_for(spec, WaitReason.DRIFT, f"{text} It can't be put back.")
                    return
                if await self._try(patch):
                    self._tools.metrics.drift.labels("repaired").inc()
                    self._tools.recorder.change(
                        Note(
                            rollout=self.key,
                            uid=spec.uid,
                            reason="DriftRepaired",
                            message=f"{text} Put back.",
                            kind="Warning",
                        )
                    )
                    self._log.warning("drift repaired", change=patch.summary)
                    return

    def _is_overtaken(self, command: Command) -> bool:
        """Whether the Rollout has meanwhile been aborted, promoted, or given other revisions."""
        rollout = self._tools.cluster.get(ROLLOUT, self.key.namespace, self.key.name)
        if rollout is None or rollout["metadata"]["uid"] != command.spec.uid:
            return False
        if belongs_on_stable(rollout) and command.weighting.desired:
            return True
        return bool(command.weighting.desired) and self._hashes_in(rollout) != command.hashes

    async def _steer(self, command: Command, *, avoided: bool = False) -> Decision | None:
        """Plan and write until nothing is left to write now.

        None when another command took this one's place, or the Rollout overtook it: what waited
        for a lock or for the gateway must not undo what was wished since.
        """
        cluster = self._tools.cluster
        config = parse_config(command.spec.config)
        if config.modelList is not None:
            await cluster.learn(config.modelList)
        objects = managed_objects(command.spec, config, self._tools.permissions, cluster)
        asked: set[str] = set()
        wrote = False
        async with self._tools.locks.hold(objects):
            for _ in range(_PASSES):
                if self._command is not command or self._is_overtaken(command):
                    return None
                try:
                    decision = plan(
                        command, cluster, now=time.time(), permissions=self._tools.permissions
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
                wrote = await self._write_all(command, decision) or wrote
        raise ConflictError(
            f"{', '.join(write.summary for write in decision.writes)}: the object changed under "
            f"each of {_PASSES} attempts to write it. It is tried again with the next call; look "
            "for another controller that writes it."
        )

    async def _write_all(self, command: Command, decision: Decision) -> bool:
        """Write in order, up to the first conflict; whether anything was written."""
        wrote = False
        for write in decision.writes:
            if not await self._try(write):
                return wrote
            wrote = True
            self._told_change(command, write, decision)
        return wrote

    async def _try(self, write: Write) -> bool:
        """Carry out one write; False for a conflict, after which the object is read again.

        A 409 is a conflict. A 422 is one if the object is not what the patch was made for, else
        the API server refuses the change itself, which trying again does not help.
        """
        cluster = self._tools.cluster
        plural = write.resource.plural
        try:
            await cluster.write(write)
        except KubeError as error:
            if not error.conflict and not error.invalid:
                self._tools.metrics.writes.labels(plural, "error").inc()
                raise
            before = cluster.get(write.resource, write.namespace, write.name)
            await cluster.refresh(write.resource, write.namespace, write.name, "conflict")
            after = cluster.get(write.resource, write.namespace, write.name)
            if error.invalid and before == after:
                self._tools.metrics.writes.labels(plural, "error").inc()
                raise
            self._tools.metrics.writes.labels(plural, "conflict").inc()
            return False
        self._tools.metrics.writes.labels(plural, "ok").inc()
        return True

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

    # Revisions

    async def _command_for(
        self, spec: RolloutSpec, weighting: Weighting, generation: int, *, hinted: bool = True
    ) -> Command:
        """The command, with the revisions that the Rollout's status names.

        The pair of the UpdateHash just before, if there was one, only checks it: a difference
        after a live read means that the controller works from an older state than the API
        server's, and its next call will be right.
        """
        hint, self._hint = (self._hint, None) if hinted else (None, self._hint)
        found = self._tools.cluster.get(ROLLOUT, self.key.namespace, self.key.name)
        behind = found is None or found["metadata"].get("generation", 0) < generation
        aborted = found is not None and belongs_on_stable(found) and weighting.desired > 0
        if behind or aborted:
            await self._tools.cluster.refresh_rollout(self.key, "behind")
        hashes = self._hashes(spec)
        if hashes is None or (hint is not None and hint != hashes):
            await self._tools.cluster.refresh_rollout(self.key, "hash_mismatch")
            hashes = self._hashes(spec)
        if hashes is None:
            raise StaleError(
                f"Rollout {self.key} (uid {spec.uid}) has no stable and current revision in its "
                "status. The next call is tried again."
            )
        if hint is not None and hint != hashes:
            raise StaleError(
                f"The controller means canary {hint.canary} and stable {hint.stable}, but the "
                f"status of Rollout {self.key} says {hashes.canary} and {hashes.stable}. The next "
                "call is tried again."
            )
        return Command(spec=spec, hashes=hashes, weighting=weighting)

    def _hashes(self, spec: RolloutSpec) -> Hashes | None:
        rollout = self._tools.cluster.get(ROLLOUT, self.key.namespace, self.key.name)
        if rollout is None or rollout["metadata"]["uid"] != spec.uid:
            return None
        return self._hashes_in(rollout)

    def _hashes_in(self, rollout: Object) -> Hashes | None:
        cluster = self._tools.cluster
        uid = rollout["metadata"]["uid"]
        return hashes_of(rollout, lambda one: cluster.available(self.key.namespace, uid, one))

    # What is told

    def _may_hold(self, command: Command) -> bool:
        """Whether the controller may still be held back for this pair of revisions."""
        if self._hold is None or self._hold.hashes != command.hashes:
            self._hold = _Hold(command.hashes)
        limit_s = parse_config(command.spec.config).holdSeconds
        return time.monotonic() - self._hold.since < limit_s

    def _report(self, command: Command, decision: Decision) -> None:
        """One Event per reason of waiting, and an end to those that have passed."""
        if decision.verified:
            self._tools.recorder.clear(command.spec.uid, *WaitReason)
            return
        for wait in decision.waits:
            self._tools.metrics.waits.labels(wait.reason.value).inc()
            if not wait.quiet:
                self._standing(command, wait.reason, wait.message)
        if decision.reached and decision.unaccepted:
            self._tools.metrics.waits.labels(WaitReason.GATEWAY.value).inc()
            self._standing(command, WaitReason.GATEWAY, decision.unaccepted)
        self._log.info(
            "not yet where it was commanded",
            desired_weight=command.weighting.desired,
            reasons=[wait.message for wait in decision.waits] or decision.unaccepted,
        )

    def _told_change(self, command: Command, write: Write, decision: Decision) -> None:
        own = "; without waiting for the controller" if command.own else ""
        purpose = (
            f"(canary {command.hashes.canary} {command.weighting.desired} of "
            f"{command.weighting.maximum}{own})"
        )
        if command.own:
            self._tools.metrics.own_moves.inc()
        weights = isinstance(write, ObjectPatch)
        self._tools.recorder.change(
            Note(
                rollout=self.key,
                uid=command.spec.uid,
                reason="WeightsWritten" if weights else "PoolAimed",
                message=f"{write.summary} {purpose}",
            )
        )
        for note in decision.notes:
            self._standing(command, "WeightsNote", note)
        self._log.info(
            "weights written" if weights else "pool aimed",
            change=write.summary,
            canary=command.hashes.canary,
            stable=command.hashes.stable,
            desired_weight=command.weighting.desired,
            own=command.own,
        )

    def _tell_problem(self, error: PluginError) -> None:
        if self._command is not None:
            self._standing(self._command, error.reason, str(error))

    def problem(self, spec: RolloutSpec, error: PluginError) -> None:
        """Put an error that was answered to the controller on the Rollout as an Event."""
        if not error.retryable:
            self._standing_for(spec, error.reason, str(error))

    def _standing(self, command: Command, reason: str, message: str) -> None:
        self._standing_for(command.spec, reason, message)

    def _standing_for(self, spec: RolloutSpec, reason: str, message: str) -> bool:
        note = Note(
            rollout=self.key, uid=spec.uid, reason=str(reason), message=message, kind="Warning"
        )
        return self._tools.recorder.standing(note)


def _is_soon(decision: Decision) -> bool:
    """Whether what is missing belongs to every healthy step: gateway and settling, not pods."""
    return all(wait.quiet for wait in decision.waits)
