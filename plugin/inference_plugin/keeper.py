"""Keeps the traffic of one Rollout where it was commanded.

A keeper is level-based: it holds the last command, and each pass compares it with the cluster
and takes the next step. Passes run when the controller calls, when something it waits for
changes, and when a time is over. What it forgets in a restart, the objects and the controller's
next call tell it again.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import structlog

from inference_common.errors import KubeError
from inference_common.kube import ROLLOUT
from inference_plugin.carriers import managed_objects
from inference_plugin.config import parse_config
from inference_plugin.drift import DriftWatch
from inference_plugin.errors import (
    ConfigError,
    HoldingError,
    PluginError,
    StaleError,
)
from inference_plugin.holding import Holding
from inference_plugin.proving import Prover
from inference_plugin.recovery import interrupted
from inference_plugin.releasing import Releaser
from inference_plugin.revisions import Revisions
from inference_plugin.rollouts import (
    Command,
    belongs_on_stable,
    is_being_deleted,
    spec_of,
)
from inference_plugin.route_keeping import RouteKeeping
from inference_plugin.shares import Weighting
from inference_plugin.steering import Steering
from inference_plugin.supersession import Supersession
from inference_plugin.telling import Teller
from inference_plugin.writing import Writer

if TYPE_CHECKING:
    from inference_plugin.rollouts import RolloutKey, RolloutSpec
    from inference_plugin.shares import Hashes
    from inference_plugin.tools import Tools

Object = dict[str, Any]
_log = structlog.get_logger(__name__)

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
        self._superseded = Supersession()
        self._prover = Prover(tools, self._teller)
        self._routes = RouteKeeping(key, tools, self._writer, self._teller, self._revisions)
        self._steering = Steering(key, tools, self._writer, self._teller, self._revisions)
        self._settled = True
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
        return self._steering.command.spec.config if self._steering.command else b""

    @property
    def is_active(self) -> bool:
        """Whether something is still to be done or waited for."""
        return self._steering.is_waiting or not self._settled

    def look_again(self) -> None:
        """What the last plan looked at has changed: plan anew, now if something is due."""
        self._steering.forget()
        if self.is_active:
            self.wake()

    def wake(self) -> None:
        """Something changed: look again."""
        self._steering.wake()

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
        if self._steering.is_overtaken(command):
            raise StaleError(
                f"Weight {weighting.desired} was asked for, but Rollout {self.key} is aborted or "
                "fully promoted. The next call is tried again."
            )
        self._take(command)
        self._settled = False
        decision = await self._steering.steer(command, avoided=True)
        if decision is not None:
            decision = await self._steering.wait(
                command, decision, lambda found: found.hold is None, _HOLD_WAIT_S
            )
        if decision is None:
            raise StaleError(
                f"Rollout {self.key} was aborted, promoted or changed while its weights were being "
                "written. The next call is tried again."
            )
        self._settled = decision.done
        if decision.retry_s is not None:
            # What waits for an object is woken by it; only the background looks at the clock.
            self.wake()
        if decision.hold is None:
            self._holding.end()
        elif self._holding.allows(command.hashes, parse_config(command.spec.config).holdSeconds):
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
        config = parse_config(command.spec.config)
        limit_s = min(config.settleSeconds + _VERIFY_MARGIN_S, _WAIT_LIMIT_S)
        # Without a command of SetWeight since the start this one is it; another one would mean
        # that a later wish has come in between, which must not be undone.
        known = self._steering.command
        if known is None or (known.hashes, known.weighting) != (command.hashes, weighting):
            if known is not None:
                return False
            self._take(command)
        if self._steering.eased(command) is not command:
            # What the controller believes to be the weight has been lowered ahead of it.
            return False
        decision = await self._steering.steer(self._steering.command or command)
        if decision is not None:
            decision = await self._steering.wait(
                self._steering.command or command, decision, lambda found: found.verified, limit_s
            )
        if decision is None:
            return False
        self._teller.progress(command, decision)
        if not decision.verified or config.dataPlaneProof is None:
            return decision.verified
        entries = [entry for *_, entry in self._drift.entries(command.spec)]
        return await self._prover.holds(command, config, entries)

    async def check_routes(self, spec: RolloutSpec, version: str = "") -> None:
        """Say what is wrong with a step for a managed route; SetWeight makes it.

        Raises ConfigError.
        """
        await self._routes.check(spec, version)

    async def remove_routes(self, spec: RolloutSpec, version: str = "") -> None:
        """Take managed routes away that the Rollout's steps do not want any more.

        Raises KubeError and ConflictError.
        """
        await self._routes.remove(spec, version)

    # The level-based part

    async def _run(self) -> None:
        delay_s = _FIRST_DELAY_S
        while True:
            changed = self._steering.changed
            failed = True
            retry_s: float | None = None
            try:
                retry_s = await self._pass()
                failed = False
            except ConfigError as error:
                # The next call of the controller reports it again, with the same words.
                if self._steering.command is not None:
                    self._teller.problem(self._steering.command.spec.uid, error)
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
        leads = self._tools.leadership.leads
        if not leads and self._settled:
            return None
        await self._steering.learn(spec)
        drift_retry_s = None
        if leads:
            await self._give_up_strays(rollout, spec)
            drift_retry_s = await self._drift.mend(spec)
        command = self._wanted(rollout, spec, hashes)
        if command is None or (command.own and not leads):
            # Another server that leads moves the traffic to stable.
            self._settled = True
            return drift_retry_s
        # A call of the controller may bring another command while this one waits for a lock.
        self._steering.take(command)
        self._settled = False
        decision = await self._steering.steer(command)
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
        command = self._steering.command
        if command is None:
            command = interrupted(spec, hashes, [entry for *_, entry in self._drift.entries(spec)])
        if command is not None and (
            command.hashes != hashes or command.spec.uid != rollout["metadata"]["uid"]
        ):
            command = None
        if command is not None and self._is_superseded(command, spec):
            command = None
        if command is not None and parse_config(command.spec.config) != parse_config(spec.config):
            # The same wish for other objects: what the old ones carried has just been given up.
            command = replace(command, spec=spec)
        if not belongs_on_stable(rollout):
            return command
        if command is not None and command.weighting.away == 0:
            return command
        if command is None and not self._drift.entries(spec):
            # Nothing is written before the controller has asked for something once.
            return None
        return Command(
            spec=spec,
            hashes=hashes,
            weighting=Weighting(desired=0, maximum=spec.max_weight),
            own=True,
        )

    def _is_superseded(self, command: Command, spec: RolloutSpec) -> bool:
        """Whether another server has been given a later command; never with a single one."""
        if not self._tools.leadership.lease:
            return False
        entries = [(where, entry) for where, _, entry in self._drift.entries(spec)]
        return self._superseded.over(entries, command, self._steering.eased(command))

    def _take(self, command: Command) -> None:
        """Work for a command of the controller from now on."""
        if self._tools.leadership.lease:
            self._superseded.take(
                (where, entry) for where, _, entry in self._drift.entries(command.spec)
            )
        self._steering.take(command)

    def problem(self, spec: RolloutSpec, error: PluginError) -> None:
        """Put an error that was answered to the controller on the Rollout as an Event."""
        self._teller.problem(spec.uid, error)
