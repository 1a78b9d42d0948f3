"""Managed weights that somebody else changed: put back, taken over, or only told.

Drift is a difference between the weights and what the annotation beside them says was commanded,
never between them and the Rollout's status, which lags. Without the annotation there is nothing to
compare with: the next command decides.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import structlog

from inference_plugin import commanded
from inference_plugin.carriers import managed_objects
from inference_plugin.config import DriftPolicy, parse_config
from inference_plugin.managed import adopt, drift_of, restore
from inference_plugin.targets import WaitReason

if TYPE_CHECKING:
    from inference_common.kube import Resource
    from inference_plugin.rollouts import RolloutKey, RolloutSpec
    from inference_plugin.telling import Teller
    from inference_plugin.tools import Tools
    from inference_plugin.writing import Writer

Object = dict[str, Any]
Where = tuple["Resource", str, str]
_log = structlog.get_logger(__name__)

_ATTEMPTS: Final = 10
_WINDOW_S: Final = 60.0
_REPAIRS: Final = 5
"""Repairs within the window before it slows down: somebody else keeps writing."""


class DriftWatch:
    """Looks after the managed weights of one Rollout."""

    def __init__(self, key: RolloutKey, tools: Tools, writer: Writer, teller: Teller) -> None:
        """Nothing has been repaired yet."""
        self._key = key
        self._tools = tools
        self._writer = writer
        self._teller = teller
        self._repairs: list[float] = []
        self._log = _log.bind(rollout=str(key))

    def entries(self, spec: RolloutSpec) -> list[tuple[Where, Object, commanded.Commanded]]:
        """The managed objects that carry a commanded state of this very Rollout."""
        found = []
        cluster = self._tools.cluster
        config = parse_config(spec.config)
        for where in managed_objects(spec, config, self._tools.permissions, cluster):
            obj = cluster.get(*where)
            entry = commanded.read(obj, str(self._key)) if obj else None
            if obj and entry and entry.uid == spec.uid:
                found.append((where, obj, entry))
        return found

    async def mend(self, spec: RolloutSpec) -> float | None:
        """Deal with every difference as configured; returns when to look again."""
        config = parse_config(spec.config)
        for where, obj, entry in self.entries(spec):
            drift = drift_of(where[0], obj, entry, config)
            if not drift:
                self._teller.over(spec.uid, WaitReason.DRIFT)
                continue
            text = f"{where[0].kind} {where[1]}/{where[2]} was changed by somebody else: {drift}."
            if config.drift is DriftPolicy.ADOPT and await self._adopt(spec, where, text):
                continue
            if config.drift is DriftPolicy.REPORT:
                if self._teller.standing(spec.uid, WaitReason.DRIFT, text):
                    self._tools.metrics.drift.labels("reported").inc()
                continue
            now = time.monotonic()
            self._repairs = [at for at in self._repairs if now - at < _WINDOW_S]
            if len(self._repairs) >= _REPAIRS:
                self._teller.standing(
                    spec.uid,
                    "DriftFight",
                    f"{text} Repaired {_REPAIRS} times within {_WINDOW_S:.0f} s; slowing down. "
                    "Stop the other writer.",
                )
                return _WINDOW_S / _REPAIRS
            await self._put_back(spec, where, text)
            self._repairs.append(now)
        return None

    async def _adopt(self, spec: RolloutSpec, where: Where, text: str) -> bool:
        """Make the weights as they stand the commanded ones; False where that can't be."""
        async with self._tools.locks.hold([where]):
            for _ in range(_ATTEMPTS):
                obj = self._tools.cluster.get(*where)
                entry = commanded.read(obj, str(self._key)) if obj else None
                if obj is None or entry is None or entry.uid != spec.uid:
                    return True
                config = parse_config(spec.config)
                if not drift_of(where[0], obj, entry, config):
                    return True
                patch = adopt(where[0], obj, entry, config)
                if patch is None:
                    return False
                if await self._writer.attempt(patch):
                    self._tools.metrics.drift.labels("adopted").inc()
                    self._teller.change(
                        spec.uid,
                        "DriftAdopted",
                        f"{text} Taken over until the next command.",
                    )
                    return True
        return True

    async def _put_back(self, spec: RolloutSpec, where: Where, text: str) -> None:
        async with self._tools.locks.hold([where]):
            for _ in range(_ATTEMPTS):
                obj = self._tools.cluster.get(*where)
                entry = commanded.read(obj, str(self._key)) if obj else None
                if obj is None or entry is None or entry.uid != spec.uid:
                    return
                patch = restore(where[0], obj, entry, parse_config(spec.config))
                if patch is None:
                    self._teller.standing(
                        spec.uid, WaitReason.DRIFT, f"{text} It can't be put back."
                    )
                    return
                if await self._writer.attempt(patch):
                    self._tools.metrics.drift.labels("repaired").inc()
                    self._teller.change(
                        spec.uid, "DriftRepaired", f"{text} Put back.", warning=True
                    )
                    self._log.warning("drift repaired", change=patch.summary)
                    return
