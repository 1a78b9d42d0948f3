"""What a keeper tells about its Rollout: Events, counts and log lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from inference_plugin.events import Note
from inference_plugin.patches import ObjectPatch
from inference_plugin.targets import WaitReason

if TYPE_CHECKING:
    from inference_plugin.decisions import Decision
    from inference_plugin.errors import PluginError
    from inference_plugin.patches import Write
    from inference_plugin.rollouts import Command, RolloutKey
    from inference_plugin.tools import Tools

_log = structlog.get_logger(__name__)


class Teller:
    """Speaks about one Rollout."""

    def __init__(self, key: RolloutKey, tools: Tools) -> None:
        """Speak through these tools."""
        self._key = key
        self._recorder = tools.recorder
        self._metrics = tools.metrics
        self._log = _log.bind(rollout=str(key))

    def progress(self, command: Command, decision: Decision) -> None:
        """One Event per reason of waiting, and an end to those that have passed."""
        if decision.verified:
            self._recorder.clear(command.spec.uid, *WaitReason)
            return
        for wait in decision.waits:
            self._metrics.waits.labels(wait.reason.value).inc()
            if not wait.quiet:
                self.standing(command.spec.uid, wait.reason, wait.message)
        if decision.reached and decision.unaccepted:
            self._metrics.waits.labels(WaitReason.GATEWAY.value).inc()
            self.standing(command.spec.uid, WaitReason.GATEWAY, decision.unaccepted)
        self._log.info(
            "not yet where it was commanded",
            desired_weight=command.weighting.desired,
            reasons=[wait.message for wait in decision.waits] or decision.unaccepted,
        )

    def written(self, command: Command, write: Write, decision: Decision) -> None:
        """A write that was carried out."""
        own = "; without waiting for the controller" if command.own else ""
        purpose = (
            f"(canary {command.hashes.canary} {command.weighting.desired} of "
            f"{command.weighting.maximum}{own})"
        )
        if command.own:
            self._metrics.own_moves.inc()
        weights = isinstance(write, ObjectPatch)
        self.change(
            command.spec.uid,
            "WeightsWritten" if weights else "PoolAimed",
            f"{write.summary} {purpose}",
        )
        for note in decision.notes:
            self.standing(command.spec.uid, "WeightsNote", note)
        self._log.info(
            "weights written" if weights else "pool aimed",
            change=write.summary,
            canary=command.hashes.canary,
            stable=command.hashes.stable,
            desired_weight=command.weighting.desired,
            own=command.own,
        )

    def problem(self, uid: str, error: PluginError) -> None:
        """An error that only a change of a manifest ends."""
        if not error.retryable:
            self.standing(uid, error.reason, str(error))

    def change(self, uid: str, reason: str, message: str, *, warning: bool = False) -> None:
        """Something that happened: an Event each time."""
        self._recorder.change(
            Note(
                rollout=self._key,
                uid=uid,
                reason=reason,
                message=message,
                kind="Warning" if warning else "Normal",
            )
        )

    def standing(self, uid: str, reason: str, message: str) -> bool:
        """Something that lasts: one Event until it is over. Whether it was news."""
        note = Note(rollout=self._key, uid=uid, reason=str(reason), message=message, kind="Warning")
        return self._recorder.standing(note)

    def over(self, uid: str, *reasons: str) -> None:
        """What lasted has passed; without reasons, all of it."""
        self._recorder.clear(uid, *reasons)
