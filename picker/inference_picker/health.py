"""gRPC health under the names that gateways and kubelets ask for, on one port or several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as grpc_health
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from inference_picker import wire
from inference_picker.errors import ConfigError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

READINESS: Final = ("", "readiness", wire.SERVICE, "inference-extension")
"""Health services that turn to NOT_SERVING while draining, as the protocol's peers name them."""
LIVENESS: Final = "liveness"

_SERVING: Final = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """The state that every port tells."""

    def __init__(self) -> None:
        """Live, and not ready yet."""
        self._servicer = grpc_health.HealthServicer()
        self._told: dict[str, bool] = {}

    def add_to(self, server: grpc.aio.Server) -> None:
        """Answer on this server too."""
        add_HealthServicer_to_server(self._servicer, server)

    async def set_ready(self, *, ready: bool) -> None:
        """Turn readiness on or off; liveness stays."""
        await self.set_service(LIVENESS, ready=True)
        for service in READINESS:
            await self.set_service(service, ready=ready)

    async def set_service(self, name: str, *, ready: bool) -> None:
        """Turn the health of one more service, as a pool, on or off."""
        if self._told.get(name) is not ready:
            self._told[name] = ready
            await self._servicer.set(name, _SERVING if ready else _NOT_SERVING)


class HealthPort:
    """A plaintext port with nothing but health: a kubelet's gRPC probe speaks no TLS."""

    def __init__(self, health: Health, address: str) -> None:
        """``address`` is ``host:port``; port 0 lets the system choose. Raises ConfigError."""
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        health.add_to(self._server)
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise ConfigError(f"--health-address {address}: can't be bound: {error}") from error

    async def __aenter__(self) -> Self:
        await self._server.start()
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self._server.stop(grace=None)
