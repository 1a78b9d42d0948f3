"""The plugin server itself, asked over its own port."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from inference_plugin.doctor.checks import Check, fail, ok, skipped, warn
from inference_plugin.introductions import PROTOCOL

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_SOCKET: Final = Path("/run/inference-rollouts/plugin.sock")
_LIMIT_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where the server listens; the TLS files belong to ``address``."""

    socket: Path | None = None
    address: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None
    server_name: str | None = None


async def check_server(door: Door) -> list[Check]:
    """Ask the server what it is, and judge the answer."""
    import grpc  # noqa: PLC0415 - takes its time to import
    from grpc import aio  # noqa: PLC0415

    from inference_plugin._pb import traffic_router_pb2 as pb  # noqa: PLC0415
    from inference_plugin._pb import traffic_router_pb2_grpc as pb_grpc  # noqa: PLC0415

    name = "server"
    socket = door.socket
    if socket is None and door.address is None and DEFAULT_SOCKET.is_socket():
        socket = DEFAULT_SOCKET
    if socket is None and door.address is None:
        return [
            skipped(
                name,
                "it was not named, and is not beside this command",
                "run doctor in its container (kubectl exec deploy/argo-rollouts -c "
                "inference-rollouts-plugin -- inference-rollouts plugin doctor), or give --socket "
                "or --server",
            )
        ]
    where = f"unix:{socket}" if socket else str(door.address)
    if socket is not None:
        channel = aio.insecure_channel(where)
    else:
        try:
            channel = aio.secure_channel(where, _credentials(door), options=_options(door))
        except OSError as error:
            return [fail(name, f"a certificate can't be read: {error}", "correct the --tls-…")]
    try:
        stub = pb_grpc.TrafficRouterStub(channel)
        answer = await stub.Describe(pb.DescribeRequest(), timeout=_LIMIT_S, wait_for_ready=True)
    except aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return [
                fail(name, f"{where} is a server from before doctor", "install the same version")
            ]
        return [
            fail(
                name,
                f"{where} does not answer: {error.code().name}: {error.details()}",
                "see whether the server runs and listens there, and its log; with TLS, whether "
                "both sides trust each other's authority",
            )
        ]
    finally:
        await channel.close()
    return list(judge(answer, where))


def judge(answer: Any, where: str) -> Iterator[Check]:
    """What a server's description says."""
    mine = version("inference-rollouts")
    if answer.protocol != PROTOCOL or answer.server_version != mine:
        yield warn(
            "server",
            f"{where} is {answer.server_version} (contract {answer.protocol}), this command is "
            f"{mine} (contract {PROTOCOL})",
            "use the command of the server's own image",
        )
    elif not answer.ready:
        yield warn(
            "server",
            f"{where} has not read the cluster yet",
            "wait a moment; if it lasts, its log says which list is refused",
        )
    else:
        lead = ""
        if answer.lease:
            lead = f", {'holds' if answer.leads else 'does not hold'} Lease {answer.lease}"
        yield ok("server", f"{where} is {mine} and ready, Rollouts: {answer.rollouts}{lead}")
    yield from _bridges(answer)


def _bridges(answer: Any) -> Iterator[Check]:
    name = "bridge"
    if not answer.bridges:
        yield warn(
            name,
            "no bridge has called since the server's start",
            "the controller loads it with the first Rollout that names the plugin; if there is "
            "one, see the controller's log",
        )
        return
    last = answer.bridges[0]
    if last.protocol != answer.protocol:
        yield fail(
            name,
            f"the bridge is {last.version} (contract {last.protocol}), the server "
            f"{answer.server_version} (contract {answer.protocol})",
            "take both from one image, and restart the controller",
        )
    elif last.version != answer.server_version:
        yield warn(
            name,
            f"the bridge is {last.version}, the server {answer.server_version}",
            "take both from one image; the contract is the same, so that calls work",
        )
    else:
        yield ok(name, f"{last.version}, last connected {last.announced_ago_s:.0f} s ago")


def _credentials(door: Door) -> Any:
    import grpc  # noqa: PLC0415

    def read(path: Path | None) -> bytes | None:
        return path.read_bytes() if path else None

    return grpc.ssl_channel_credentials(
        root_certificates=read(door.authority),
        private_key=read(door.key),
        certificate_chain=read(door.certificate),
    )


def _options(door: Door) -> list[tuple[str, str]]:
    if door.server_name is None:
        return []
    return [("grpc.ssl_target_name_override", door.server_name)]
