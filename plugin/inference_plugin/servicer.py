"""The gRPC edge: messages in, a keeper's answer out, every error turned into words once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import grpc
import structlog

from inference_common.errors import KubeError
from inference_plugin._pb import traffic_router_pb2 as pb
from inference_plugin._pb import traffic_router_pb2_grpc as pb_grpc
from inference_plugin.errors import PluginError
from inference_plugin.introductions import PROTOCOL, Introductions
from inference_plugin.leadership import AlwaysLeads
from inference_plugin.rollouts import RolloutKey, RolloutSpec
from inference_plugin.shares import DEFAULT_MAX_WEIGHT, Extra, Hashes, Weighting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from inference_plugin.cluster import Cluster
    from inference_plugin.keepers import Keepers
    from inference_plugin.leadership import Leadership
    from inference_plugin.telemetry import Metrics

_log = structlog.get_logger(__name__)

_CALL_LIMIT_S: Final = 7.5
"""Below the bridge's deadline of 8 s, so that the controller gets words instead of a timeout."""


class Servicer(pb_grpc.TrafficRouterServicer):  # type: ignore[misc, unused-ignore]
    """The methods of Argo Rollouts' traffic-router plugin."""

    def __init__(
        self,
        cluster: Cluster,
        keepers: Keepers,
        metrics: Metrics,
        leadership: Leadership | AlwaysLeads | None = None,
    ) -> None:
        """Serve what these offer; without a leadership this is the only server."""
        self._cluster = cluster
        self._keepers = keepers
        self._metrics = metrics
        self._leadership = leadership or AlwaysLeads()
        self._introductions = Introductions()

    async def InitPlugin(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
        """Say that the server is there; the controller forgets a failure, so there is none."""
        del context
        self._introductions.note(request.bridge_version, request.protocol)
        _log.info(
            "controller connected",
            bridge_version=request.bridge_version,
            protocol=request.protocol,
        )
        return pb.Outcome()

    async def Describe(self, request: Any, context: Any) -> Any:  # noqa: N802
        """What this server is, for ``plugin doctor``."""
        del request, context
        return pb.DescribeResponse(
            server_version=version("inference-rollouts"),
            protocol=PROTOCOL,
            ready=self._cluster.is_synced,
            rollouts=len(self._keepers),
            bridges=[
                pb.Bridge(version=each.version, protocol=each.protocol, announced_ago_s=each.ago_s)
                for each in self._introductions.seen()
            ],
            lease=self._leadership.lease,
            leads=self._leadership.leads,
        )

    async def UpdateHash(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Take note of the two revisions; writes nothing and fails for no state."""

        async def call() -> None:
            spec = _spec(request.rollout)
            hashes = Hashes(stable=request.stable_hash, canary=request.canary_hash)
            with contextlib.suppress(KubeError):
                await self._keepers.of(spec.key).update_hash(spec, hashes)

        return await self._outcome("UpdateHash", request.rollout, context, call)

    async def SetWeight(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Move traffic to the desired weight, as far as it can be moved safely now."""

        async def call() -> None:
            spec = _spec(request.rollout)
            keeper = self._keepers.of(spec.key)
            try:
                await keeper.set_weight(
                    spec,
                    _weighting(request),
                    request.rollout.generation,
                    request.rollout.resource_version,
                )
            except PluginError as error:
                keeper.problem(spec, error)
                raise

        return await self._outcome("SetWeight", request.rollout, context, call)

    async def VerifyWeight(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Whether the traffic is where it was commanded.

        The controller never asks again after an error, so that there is none: what fails is not
        verified.
        """
        del context
        verified = False
        with self._measured("VerifyWeight") as outcome:
            try:
                if self._cluster.is_synced:
                    spec = _spec(request.rollout)
                    async with asyncio.timeout(_CALL_LIMIT_S):
                        verified = await self._keepers.of(spec.key).verify_weight(
                            spec, _weighting(request), request.rollout.generation
                        )
            except (PluginError, KubeError, TimeoutError) as error:
                _log.warning("not verified", rollout=_name(request.rollout), error=_words(error))
            except Exception:  # noqa: BLE001 - a bug must not reach the controller as a crash
                self._metrics.failures.labels("VerifyWeight").inc()
                _log.exception("internal error", rollout=_name(request.rollout))
            outcome["outcome"] = "ok" if verified else "not_verified"
        value = pb.VerifyWeightResponse
        return value(verified=value.VERIFIED if verified else value.NOT_VERIFIED)

    async def SetHeaderRoute(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Say whether the step can be had; the next SetWeight makes or takes away its rules."""
        return await self._check_routes("SetHeaderRoute", request.rollout, context)

    async def SetMirrorRoute(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The same for a mirror. Its share is read from the step: 0 is lost on the way here."""
        return await self._check_routes("SetMirrorRoute", request.rollout, context)

    async def RemoveManagedRoutes(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Take away the rules that were made for managed routes, and no others."""

        async def call() -> None:
            spec = _spec(request.rollout)
            version = request.rollout.resource_version
            await self._keepers.of(spec.key).remove_routes(spec, version)

        return await self._outcome("RemoveManagedRoutes", request.rollout, context, call)

    async def _check_routes(self, method: str, rollout: Any, context: Any) -> Any:
        async def call() -> None:
            spec = _spec(rollout)
            keeper = self._keepers.of(spec.key)
            try:
                await keeper.check_routes(spec, rollout.resource_version)
            except PluginError as error:
                keeper.problem(spec, error)
                raise

        return await self._outcome(method, rollout, context, call)

    async def _outcome(
        self, method: str, rollout: Any, context: Any, call: Callable[[], Awaitable[None]]
    ) -> Any:
        """Run a call; an empty text on success, else what its error says."""
        if not self._cluster.is_synced:
            await context.abort(
                grpc.StatusCode.UNAVAILABLE, "the plugin server is still reading the cluster"
            )
        with self._measured(method) as outcome:
            try:
                async with asyncio.timeout(_CALL_LIMIT_S):
                    await call()
            except PluginError as error:
                outcome["outcome"] = "retry" if error.retryable else "error"
                _log.warning("refused", method=method, rollout=_name(rollout), error=str(error))
                return pb.Outcome(error=str(error))
            except (KubeError, TimeoutError) as error:
                outcome["outcome"] = "retry"
                _log.warning("failed", method=method, rollout=_name(rollout), error=_words(error))
                return pb.Outcome(error=f"{method} {_name(rollout)}: {_words(error)}")
            except Exception as error:  # noqa: BLE001 - as above
                outcome["outcome"] = "error"
                self._metrics.failures.labels(method).inc()
                _log.exception("internal error", method=method, rollout=_name(rollout))
                return pb.Outcome(
                    error=f"{method} {_name(rollout)}: internal error of the plugin server: "
                    f"{type(error).__name__}. Its log has the details."
                )
        return pb.Outcome()

    @contextlib.contextmanager
    def _measured(self, method: str) -> Iterator[dict[str, str]]:
        outcome = {"outcome": "ok"}
        start = time.perf_counter()
        try:
            yield outcome
        finally:
            self._metrics.call_seconds.labels(method).observe(time.perf_counter() - start)
            self._metrics.calls.labels(method, outcome["outcome"]).inc()


def _spec(rollout: Any) -> RolloutSpec:
    maximum = rollout.max_traffic_weight if rollout.HasField("max_traffic_weight") else None
    return RolloutSpec(
        key=RolloutKey(namespace=rollout.namespace, name=rollout.name),
        uid=rollout.uid,
        config=rollout.plugin_config,
        stable_service=rollout.stable_service,
        canary_service=rollout.canary_service,
        max_weight=maximum or DEFAULT_MAX_WEIGHT,
    )


def _weighting(request: Any) -> Weighting:
    maximum = request.rollout.max_traffic_weight or DEFAULT_MAX_WEIGHT
    return Weighting(
        desired=request.desired_weight,
        additional=tuple(
            Extra(
                service=item.service_name,
                pod_template_hash=item.pod_template_hash,
                weight=item.weight,
            )
            for item in request.additional_destinations
        ),
        maximum=maximum,
    )


def _name(rollout: Any) -> str:
    return f"{rollout.namespace}/{rollout.name}"


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no end within {_CALL_LIMIT_S:g} s; tried again with the next call"
    return str(error)
