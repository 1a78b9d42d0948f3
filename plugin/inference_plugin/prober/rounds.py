"""The adapter prober: a release Rollout's pod, Ready when the pool serves a name.

``Prober`` holds what is known between two rounds; ``PoolWatch`` reads the pool and its pods.
The rules are in ``decision``.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from inference_plugin.prober.decision import Answer, Decision, History, Pod, Probe, decide
from inference_plugin.prober.models import combined, read_models
from inference_plugin.prober.pool import ready_since

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from inference_plugin.prober.decision import Rules
    from inference_plugin.prober.identity import Condition
    from inference_plugin.prober.models import Fetch

_log = structlog.get_logger(__name__)
_PARALLEL: Final = 32
NOT_STARTED: Final = Decision(ready=False, reason="the pool has not been read yet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is asked for, and of whom."""

    namespace: str
    pool: str
    name: str
    identity: tuple[Condition, ...]
    rules: Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The pool as of now. ``pods`` are API objects, ready or not."""

    pods: Sequence[Mapping[str, Any]]
    ports: tuple[int, ...]
    stable: bool


class Prober:
    """Probe histories and the decision that stands."""

    def __init__(
        self,
        target: Target,
        fetch: Fetch,
        *,
        clock: Callable[[], float] = time.time,
        on_probe: Callable[[Probe], None] = lambda _: None,
    ) -> None:
        """Start with nothing known. The clock gives seconds since the epoch."""
        self.target = target
        self.decision = NOT_STARTED
        self.pods: tuple[Pod, ...] = ()
        self.stable = False
        self._fetch = fetch
        self._clock = clock
        self._on_probe = on_probe
        self._histories: dict[str, History] = {}
        self._empty_rounds = 0
        self._slots = asyncio.Semaphore(_PARALLEL)

    async def round(self, view: View) -> Decision:
        """Probe all ready pods at once and decide."""
        ready = [(pod, since) for pod in view.pods if (since := ready_since(pod)) is not None]
        probes = await asyncio.gather(*(self._probe(pod, view.ports) for pod, _ in ready))
        now = self._clock()
        histories: dict[str, History] = {}
        pods: list[Pod] = []
        for (obj, since), probe in zip(ready, probes, strict=True):
            self._on_probe(probe)
            key = _incarnation(obj, since)
            pod = Pod(
                name=obj["metadata"]["name"],
                ready_since=since,
                history=self._histories.get(key, History()),
            )
            settled = pod.settled(now=now, load_grace_s=self.target.rules.load_grace_s)
            history = histories[key] = pod.history.after(probe, settled=settled)
            pods.append(Pod(name=pod.name, ready_since=since, history=history))
        self._histories = histories
        self._empty_rounds = 0 if pods else self._empty_rounds + 1
        self.pods, self.stable = tuple(pods), view.stable
        decision = decide(
            was_ready=self.decision.ready,
            stable=view.stable,
            pods=pods,
            empty_rounds=self._empty_rounds,
            now=now,
            rules=self.target.rules,
        )
        if (decision.ready, decision.lacking) != (self.decision.ready, self.decision.lacking):
            _log.info(
                "readiness decided",
                ready=decision.ready,
                reason=decision.reason,
                lacking=decision.lacking,
                name=self.target.name,
                pool=self.target.pool,
            )
        self.decision = decision
        return decision

    def report(self) -> dict[str, Any]:
        """The body of /readyz."""
        now = self._clock()
        grace_s = self.target.rules.load_grace_s
        return {
            "ready": self.decision.ready,
            "reason": self.decision.reason,
            "lacking": list(self.decision.lacking),
            "name": self.target.name,
            "pool": f"{self.target.namespace}/{self.target.pool}",
            "stable": self.stable,
            "pods": [
                {
                    "name": pod.name,
                    "answer": pod.history.latest,
                    "settled": pod.settled(now=now, load_grace_s=grace_s),
                    "missing_probes": pod.history.missing,
                    "detail": pod.history.detail,
                }
                for pod in self.pods
            ],
        }

    async def _probe(self, pod: Mapping[str, Any], ports: tuple[int, ...]) -> Probe:
        if not ports:
            return Probe(answer=Answer.UNANSWERED, detail="the pool has no target port")
        address = pod["status"]["podIP"]
        probes: list[Probe] = []
        for port in ports:
            async with self._slots:
                found = await self._fetch(address, port)
            if isinstance(found, str):
                probes.append(Probe(answer=Answer.UNANSWERED, detail=found))
                continue
            status, body = found
            probes.append(
                read_models(
                    status, body, name=self.target.name, identity=self.target.identity, pod=pod
                )
            )
        return combined(probes)


def _incarnation(pod: Mapping[str, Any], since: float) -> str:
    # A container that was restarted has lost what was loaded into it at run time: its pod is as
    # new as one that was just created, and becoming ready again is how that shows.
    return f"{pod['metadata'].get('uid') or pod['metadata']['name']}@{since}"
