"""The controller's calls about managed routes: whether they can be had, and taking them away.

Rules of managed routes are made with the weights, by the SetWeight that follows in the same
reconcile; these calls only say early what is wrong with a step, and take rules away where no
SetWeight follows because stable is short of a pod.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import structlog

from inference_common.kube import ROLLOUT
from inference_plugin import commanded
from inference_plugin.carriers import managed_objects
from inference_plugin.config import parse_config
from inference_plugin.contexts import wished_of
from inference_plugin.errors import ConfigError, ConflictError
from inference_plugin.made_rules import arranged, foreign_rules, refuse_taken, sent_to
from inference_plugin.managed_routes import names_of
from inference_plugin.patches import ObjectPatch, guarded
from inference_plugin.rollouts import belongs_on_stable, spec_of
from inference_plugin.route_drift import changes
from inference_plugin.routes import namespace_of, resource_of, rules_of, title_of

if TYPE_CHECKING:
    from inference_common.kube import Resource
    from inference_plugin.commanded import Commanded
    from inference_plugin.revisions import Revisions
    from inference_plugin.rollouts import RolloutKey, RolloutSpec
    from inference_plugin.telling import Teller
    from inference_plugin.tools import Tools
    from inference_plugin.writing import Writer

Object = dict[str, Any]
Where = tuple["Resource", str, str]
_log = structlog.get_logger(__name__)
_ATTEMPTS: Final = 10


class RouteKeeping:
    """Looks after the managed routes of one Rollout."""

    def __init__(
        self, key: RolloutKey, tools: Tools, writer: Writer, teller: Teller, revisions: Revisions
    ) -> None:
        """Work with these tools."""
        self._key = key
        self._tools = tools
        self._writer = writer
        self._teller = teller
        self._revisions = revisions

    async def check(self, spec: RolloutSpec, version: str) -> None:
        """Say what is wrong with a step; nothing is written.

        Raises ConfigError for a managed route that can't be had.
        """
        rollout = await self._rollout(spec, version)
        # The caller's copy only says which Rollout it means.
        own = spec_of(rollout) if rollout else None
        hashes = self._revisions.of(rollout) if rollout else None
        if own is None or hashes is None:
            return
        wished = wished_of(own, hashes, parse_config(own.config), self._tools.cluster)
        for _, route, entry in self._entries(own):
            refuse_taken(route, [managed.name for managed in wished], entry, str(self._key))

    async def remove(self, spec: RolloutSpec, version: str) -> None:
        """Take away every rule that was made, unless the Rollout's steps want it as it stands.

        A Rollout that goes back to stable loses them in the same write as its weights, which is
        the keeper's. Raises KubeError and ConflictError.
        """
        cluster = self._tools.cluster
        rollout = await self._rollout(spec, version)
        own = spec_of(rollout) if rollout else None
        if rollout is None or own is None:
            return
        names = names_of(rollout)
        if not names and not cluster.carriers(str(self._key)):
            return
        entries = self._entries(own)
        for _, route, entry in entries:
            self._tell_foreign(spec, route, foreign_rules(route, names, entry))
        made = [where for where, _, entry in entries if entry and entry.made]
        if not made or belongs_on_stable(rollout) or await self._are_wished(own, rollout):
            return
        for where in made:
            await self._take_away(spec, where)

    async def _rollout(self, spec: RolloutSpec, version: str) -> Object | None:
        await self._tools.cluster.rollout_known(self._key, version)
        found = self._tools.cluster.get(ROLLOUT, self._key.namespace, self._key.name)
        return found if found is not None and found["metadata"]["uid"] == spec.uid else None

    def _entries(self, spec: RolloutSpec) -> list[tuple[Where, Object, Commanded | None]]:
        """The routes of the configuration; none while it is wrong, which SetWeight will say."""
        cluster = self._tools.cluster
        found: list[tuple[Where, Object, Commanded | None]] = []
        with contextlib.suppress(ConfigError):
            config = parse_config(spec.config)
            for where in managed_objects(spec, config, self._tools.permissions, cluster):
                obj = cluster.get(*where)
                if obj is not None and config.routes:
                    found.append((where, obj, commanded.read(obj, str(self._key))))
        return found

    async def _are_wished(self, spec: RolloutSpec, rollout: Object) -> bool:
        """Whether the steps want the rules although the controller asks for them to go.

        It does so when the canary has lost its last pod, which its watch may tell it first.
        """
        hashes = self._revisions.of(rollout)
        if hashes is None:
            return False
        config, cluster = parse_config(spec.config), self._tools.cluster
        if not wished_of(spec, hashes, config, cluster):
            return False
        await cluster.refresh_revision(self._key.namespace, hashes.canary)
        return bool(wished_of(spec, hashes, config, cluster))

    async def _take_away(self, spec: RolloutSpec, where: Where) -> None:
        async with self._tools.locks.hold([where]):
            for _ in range(_ATTEMPTS):
                route = self._tools.cluster.get(*where)
                entry = commanded.read(route, str(self._key)) if route else None
                if route is None or entry is None or not entry.made:
                    return
                patch = without_made(route, entry, time.time())
                if await self._writer.attempt(patch):
                    self._teller.change(spec.uid, "WeightsWritten", patch.summary)
                    _log.info("rules taken away", rollout=str(self._key), change=patch.summary)
                    return
        raise ConflictError(
            f"{where[0].kind} {where[1]}/{where[2]} changed under each of {_ATTEMPTS} attempts to "
            "take rules away. It is tried again with the next call."
        )

    def _tell_foreign(self, spec: RolloutSpec, route: Object, names: list[str]) -> None:
        if names:
            self._teller.standing(
                spec.uid,
                ConfigError.reason,
                f"{title_of(route)}: rule {', '.join(names)} has the name of a managed route, but "
                "was not made by this plugin, and stays as it is. Choose another name in "
                "managedRoutes and in the steps, or rename the rule.",
            )


def without_made(route: Object, entry: Commanded, now: float) -> ObjectPatch:
    """The patch that takes the rules of an entry away, at the wall-clock time ``now`` (seconds)."""
    ours = {made.name for made in entry.made}
    namespace = namespace_of(route)
    mine = [rule for rule in rules_of(route) if rule.get("name") in ours]
    rest = [rule for rule in rules_of(route) if rule.get("name") not in ours]
    drained = tuple(sorted(sent_to(mine, namespace) - sent_to(rest, namespace)))
    new = replace(
        entry,
        made=(),
        beside="",
        drained=drained or entry.drained,
        since=now if drained else entry.since,
    )
    operations = changes(route, {}, arranged(route, {}, [], ours))
    return ObjectPatch(
        resource=resource_of(route),
        namespace=namespace,
        name=route["metadata"]["name"],
        operations=guarded(route, operations, commanded.annotation_value(route, new)),
        summary=f"{title_of(route)}: rule {', '.join(sorted(ours))} taken away",
    )
