"""What is held back: pods until a gateway has moved, and moves until stable can take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from inference_plugin.decisions import Decision
from inference_plugin.gateway_status import unaccepted
from inference_plugin.routes import title_of
from inference_plugin.targets import Wait, WaitReason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference_plugin.config import RouterConfig
    from inference_plugin.rollouts import Command
    from inference_plugin.targets import ObjectPlan
    from inference_plugin.view import View

Object = dict[str, Any]
_NOTE_LIMIT_S: Final = 60.0
"""An expired hold is worth an Event when it happens, not for ever after."""


def hold_of(
    command: Command,
    config: RouterConfig,
    view: View,
    now: float,
    routes: Sequence[Object],
    plans: Sequence[ObjectPlan],
) -> tuple[Wait | None, tuple[str, ...]]:
    """Why the controller must not scale pods down yet, and the holds that were given up.

    Pods stay until every gateway has accepted the route that no longer sends to them, and, where
    they belong to neither current revision (the controller ends those in the same reconcile),
    the settle time longer; at most ``holdSeconds``.
    """
    if command.weighting.desired:
        return None, ()
    expired = []
    for route, plan_ in zip(routes, plans, strict=True):
        entry = plan_.entry
        if entry is None or not entry.drained:
            continue
        accepted = view.accepted_for_s(route)
        left = entry.since + config.holdSeconds - now
        if accepted is None and left > 0:
            message = f"{title_of(route)}: weight 0 of {', '.join(entry.drained)} is not in "
            return Wait(
                reason=WaitReason.HOLD,
                message=f"{message}effect yet: {unaccepted(route)}.",
                retry_s=left,
                quiet=True,
            ), ()
        if accepted is None and left > -_NOTE_LIMIT_S:
            expired.append(
                f"{title_of(route)}: no gateway confirmed weight 0 of {', '.join(entry.drained)} "
                f"within {config.holdSeconds:g} s ({unaccepted(route)}); going on."
            )
        if accepted is not None and entry.gone and accepted < config.settleSeconds and left > 0:
            return Wait(
                reason=WaitReason.HOLD,
                message=f"{title_of(route)}: weight 0 of {', '.join(entry.gone)} is settling.",
                retry_s=config.settleSeconds - accepted,
                quiet=True,
            ), ()
    return None, tuple(expired)


def new_home_hold(config: RouterConfig, command: Command) -> Wait:
    """Pods of the old revision stay while the promoted one has no pool yet."""
    return Wait(
        reason=WaitReason.HOLD,
        message=f"none of the pools {', '.join(config.inferencePools or ())} serves the promoted "
        f"revision {command.hashes.stable} yet.",
        quiet=True,
    )


def without_stable(command: Command, gate: Wait | None) -> Decision | None:
    """The server's own move to stable waits for stable to have a ready endpoint."""
    if not command.own or gate is None:
        return None
    wait = Wait(
        reason=WaitReason.STABLE,
        message=f"Traffic belongs on the stable revision, which can't take it: {gate.message}",
        retry_s=gate.retry_s,
    )
    return Decision(waits=(wait,), prepared=False)
