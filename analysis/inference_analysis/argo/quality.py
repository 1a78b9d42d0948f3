"""Prompts for both versions of an AnalysisRun, asked while the analysis goes on."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from inference_analysis.argo.books import ProbeTimes
from inference_analysis.errors import AnalysisError, EndpointError, InputError
from inference_analysis.observations import Arm
from inference_analysis.prompts import prompt_sets
from inference_analysis.prompts.probe_runs import probed
from inference_analysis.prompts.settings import CONFIGMAP_KEY, CONFIGMAP_PREFIX
from inference_common.errors import KubeError
from inference_common.kube import CONFIGMAP, POD
from inference_common.names import HASH_LABEL
from inference_common.pods import takes_requests

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from inference_analysis.argo.subjects import Subject
    from inference_analysis.prompts.probe_times import Span
    from inference_analysis.prompts.prompt_sets import PromptSet
    from inference_analysis.prompts.settings import QualityDocument
    from inference_common.kube import Kube

Prompts = list[dict[str, Any]]
_SHORTEST_S: Final = 1.0
"""A probe that fails sooner has sent next to nothing. Were its windows left out, an endpoint that
is never reached would blind the checks for gross harm."""
_SHOWN: Final = 300
"""Characters of a text: the worst prompts stand in the ledger, and a ConfigMap holds 1 MiB."""
_KEPT_S: Final = 3600.0
"""How long the answers for a look are kept: it may be judged again, with a newer ledger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Probe:
    task: asyncio.Task[Prompts]
    started_s: float
    """Monotonic."""


class _Times:
    """Times of one canary's probes."""

    def __init__(self) -> None:
        self.running: set[float] = set()
        self.ended: list[Span] = []
        self.void: set[float] = set()

    def end(self, begun_s: float, ended_s: float) -> None:
        self.running.discard(begun_s)
        if ended_s - begun_s >= _SHORTEST_S:
            self.ended.append((begun_s, ended_s))
        else:
            self.void.add(begun_s)


class QualityProbes:
    """One probe for each look; it runs beside the loop that asks for it."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._probes: dict[str, _Probe] = {}
        self._answered: dict[str, float] = {}
        self._times: defaultdict[tuple[str, ...], _Times] = defaultdict(_Times)

    async def close(self) -> None:
        """Stop what still runs."""
        tasks = [probe.task for probe in self._probes.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def poll(
        self,
        look_id: str,
        subject: Subject,
        settings: QualityDocument,
        begins: Callable[[float], Awaitable[object]],
    ) -> Prompts | None:
        """The ``prompts`` of the look's cells; None while they are being asked.

        The first call starts it, and so does the one after a failure. ``begins`` is awaited with
        the time before anything is sent, so that the ledger knows of a probe whose process dies.

        Raises EndpointError, InputError, LedgerError.
        """
        self._forget()
        probe = self._probes.get(look_id)
        if probe is None:
            self._probes[look_id] = _Probe(
                task=asyncio.create_task(
                    self._probed(subject, settings, begins), name=f"probe {look_id}"
                ),
                started_s=time.monotonic(),
            )
            return None
        if not probe.task.done():
            return None
        if probe.task.exception() is not None:
            del self._probes[look_id]
        found = probe.task.result()
        self._answered.setdefault(look_id, time.time())
        return found

    def answered_s(self, look_id: str) -> float:
        """When the look's prompts were first given, in seconds since the epoch; 0: not yet."""
        return self._answered.get(look_id, 0.0)

    def times(self, subject: Subject) -> ProbeTimes:
        """When this process sent prompts to the canary and its stable pods."""
        found = self._times[_canary(subject)]
        return ProbeTimes(
            running=frozenset(found.running),
            ended=tuple(found.ended),
            void=frozenset(found.void),
        )

    def _forget(self) -> None:
        past = time.monotonic() - _KEPT_S
        self._probes = {
            look_id: probe
            for look_id, probe in self._probes.items()
            if not probe.task.done() or probe.started_s > past
        }
        self._answered = {k: at for k, at in self._answered.items() if k in self._probes}

    async def _probed(
        self,
        subject: Subject,
        settings: QualityDocument,
        begins: Callable[[float], Awaitable[object]],
    ) -> Prompts:
        hashes = {Arm.CANARY: subject.canary_hash, Arm.STABLE: subject.stable_hash}
        try:
            prompt_set = await self._prompt_set(subject.namespace, settings.prompt_set)
            adapters = {
                Arm.CANARY: subject.canary_destination,
                Arm.STABLE: subject.stable_destination,
            }
            pods = {}
            if settings.pod_port is not None:
                for arm, pod_hash in hashes.items():
                    if not settings.arm(arm).url:
                        pods[arm] = await self._pods(subject, pod_hash, settings.pod_port)
            endpoints = settings.endpoints(pods, adapters)
            times, begun = self._times[_canary(subject)], time.time()
            times.running.add(begun)
            try:
                await begins(begun)
                run = await probed(
                    prompt_set,
                    endpoints,
                    settings.plan(),
                    judging=settings.judging(),
                    hashes=hashes,
                    keep_answers=settings.keep_answers,
                    ca_file=settings.ca_file,
                )
            finally:
                times.end(begun, time.time())
            structlog.get_logger().info("answers were compared", summary=run.summary)
            return [_short(prompt) for prompt in run.prompts()]
        except AnalysisError:
            raise
        except KubeError as error:
            raise EndpointError(f"quality: the API server does not answer: {error}") from error
        except OSError as error:
            raise InputError(f"quality: {error}") from error

    async def _prompt_set(self, namespace: str, name: str) -> PromptSet:
        if not name.startswith(CONFIGMAP_PREFIX):
            return prompt_sets.load(name)
        wanted = name.removeprefix(CONFIGMAP_PREFIX)
        where = f"quality.promptSet: ConfigMap {namespace}/{wanted}"
        try:
            found = await self._kube.get(CONFIGMAP, wanted, namespace)
        except KubeError as error:
            if error.not_found:
                raise InputError(f"{where} does not exist") from error
            raise
        text = (found.get("data") or {}).get(CONFIGMAP_KEY)
        if text is None:
            raise InputError(f"{where} has no key {CONFIGMAP_KEY}")
        try:
            return prompt_sets.read(text.encode())
        except InputError as error:
            raise InputError(*(f"{where}: {problem}" for problem in error.problems)) from error

    async def _pods(self, subject: Subject, pod_hash: str, port: int) -> list[str]:
        """Addresses of the ready pods of one version. The Rollout's name keeps others out."""
        found = await self._kube.list(POD, subject.namespace, f"{HASH_LABEL}={pod_hash}")
        prefix = f"{subject.rollout}-{pod_hash}-"
        return [
            f"http://{_host(pod['status']['podIP'])}:{port}"
            for pod in sorted(found["items"], key=lambda pod: str(pod["metadata"]["name"]))
            if takes_requests(pod) and pod["metadata"]["name"].startswith(prefix)
        ]


def _canary(subject: Subject) -> tuple[str, ...]:
    return subject.namespace, subject.rollout, subject.canary_hash


def _short(prompt: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value[:_SHOWN] + " …" if isinstance(value, str) and len(value) > _SHOWN else value
        for name, value in prompt.items()
    }


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
