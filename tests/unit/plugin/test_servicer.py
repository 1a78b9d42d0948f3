"""The gRPC edge on a real socket: what the bridge gets for each kind of answer."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest
from grpc import aio
from prometheus_client import CollectorRegistry

from inference_common.errors import KubeError, KubeUnreachable
from inference_plugin._pb import traffic_router_pb2 as pb
from inference_plugin._pb import traffic_router_pb2_grpc as pb_grpc
from inference_plugin.errors import ConfigError
from inference_plugin.server import free_socket
from inference_plugin.servicer import Servicer
from inference_plugin.telemetry import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ROLLOUT = pb.Rollout(namespace="llm", name="chat", uid="u", generation=3, plugin_config=b"{}")


class Script:
    """Cluster, keepers and keeper at once: answers as told, and keeps what was asked."""

    def __init__(self) -> None:
        self.is_synced = True
        self.error: Exception | None = None
        self.verified = True
        self.asked: list[Any] = []
        self.problems: list[Exception] = []

    def of(self, key: Any) -> Script:
        self.asked.append(key)
        return self

    async def update_hash(self, *arguments: Any) -> None:
        await self.set_weight(*arguments)

    async def set_weight(self, *arguments: Any) -> None:
        self.asked += arguments
        if self.error is not None:
            raise self.error

    async def verify_weight(self, *arguments: Any) -> bool:
        await self.set_weight(*arguments)
        return self.verified

    async def check_routes(self, *arguments: Any) -> None:
        await self.set_weight(*arguments)

    async def remove_routes(self, *arguments: Any) -> None:
        await self.set_weight(*arguments)

    def problem(self, _: Any, error: Exception) -> None:
        self.problems.append(error)


@asynccontextmanager
async def serving(script: Script, path: Path) -> AsyncIterator[Any]:
    server = aio.server()
    servicer = Servicer(cast("Any", script), cast("Any", script), Metrics(CollectorRegistry()))
    pb_grpc.add_TrafficRouterServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    try:
        async with aio.insecure_channel(f"unix:{path}") as channel:
            yield pb_grpc.TrafficRouterStub(channel)
    finally:
        await server.stop(None)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def stub(script: Script, tmp_path: Path) -> AsyncIterator[Any]:
    async with serving(script, tmp_path / "s") as found:
        yield found


async def test_what_the_bridge_sends_arrives(stub: Any, script: Script) -> None:
    rollout = pb.Rollout(max_traffic_weight=1000, resource_version="77")
    rollout.MergeFrom(ROLLOUT)
    answer = await stub.SetWeight(pb.SetWeightRequest(rollout=rollout, desired_weight=10))
    assert answer.error == ""
    key, spec, weighting, generation, version = script.asked
    assert (str(key), spec.config, spec.max_weight) == ("llm/chat", b"{}", 1000)
    assert (generation, version) == (3, "77")
    assert (weighting.desired, weighting.maximum) == (10, 1000)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        pytest.param(ConfigError("no such route"), "no such route", id="configuration"),
        pytest.param(
            KubeError(403, "Forbidden", "no patch", "PATCH /x"),
            "SetWeight llm/chat: PATCH /x: 403 Forbidden: no patch",
            id="refused-by-the-api-server",
        ),
        pytest.param(KubeUnreachable("refused"), "Unreachable", id="no-api-server"),
        pytest.param(KeyError("bug"), "internal error of the plugin server: KeyError", id="a-bug"),
    ],
)
async def test_a_failed_set_weight_is_an_answer_with_words(
    stub: Any, script: Script, error: Exception, says: str
) -> None:
    script.error = error
    answer = await stub.SetWeight(pb.SetWeightRequest(rollout=ROLLOUT))
    assert says in answer.error
    assert script.problems == ([error] if isinstance(error, ConfigError) else [])


@pytest.mark.parametrize(
    "error",
    [ConfigError("x"), KubeUnreachable("x"), KeyError("x")],
    ids=["configuration", "no-api-server", "a-bug"],
)
async def test_verify_weight_never_answers_an_error(
    stub: Any, script: Script, error: Exception
) -> None:
    """The controller does not requeue on an error there (rollout/trafficrouting.go, v1.10.2)."""
    script.error = error
    answer = await stub.VerifyWeight(pb.VerifyWeightRequest(rollout=ROLLOUT))
    assert (answer.verified, answer.error) == (pb.VerifyWeightResponse.NOT_VERIFIED, "")


@pytest.mark.parametrize("verified", [True, False])
async def test_verify_weight_says_what_was_found(stub: Any, script: Script, verified: bool) -> None:
    script.verified = verified
    answer = await stub.VerifyWeight(pb.VerifyWeightRequest(rollout=ROLLOUT))
    expected = "VERIFIED" if verified else "NOT_VERIFIED"
    assert answer.verified == pb.VerifyWeightResponse.Verified.Value(expected)


async def test_before_the_cluster_was_read_the_bridge_is_told_to_come_again(
    stub: Any, script: Script
) -> None:
    script.is_synced = False
    with pytest.raises(aio.AioRpcError) as found:
        await stub.SetWeight(pb.SetWeightRequest(rollout=ROLLOUT))
    assert found.value.code() == grpc.StatusCode.UNAVAILABLE
    answer = await stub.VerifyWeight(pb.VerifyWeightRequest(rollout=ROLLOUT))
    assert answer.verified == pb.VerifyWeightResponse.NOT_VERIFIED


async def test_update_hash_fails_for_nothing_in_the_cluster(stub: Any, script: Script) -> None:
    script.error = KubeUnreachable("away")
    answer = await stub.UpdateHash(pb.UpdateHashRequest(rollout=ROLLOUT, canary_hash="h2"))
    assert answer.error == ""


@pytest.mark.parametrize(
    ("method", "request_of"),
    [
        pytest.param("SetHeaderRoute", pb.SetHeaderRouteRequest, id="header-route"),
        pytest.param("SetMirrorRoute", pb.SetMirrorRouteRequest, id="mirror"),
    ],
)
async def test_a_step_that_can_not_be_had_is_told_in_words_and_as_an_event(
    stub: Any, script: Script, method: str, request_of: Any
) -> None:
    script.error = ConfigError("header x is compared by prefix")
    answer = await getattr(stub, method)(request_of(rollout=ROLLOUT, name="beta"))
    assert answer.error == "header x is compared by prefix"
    assert script.problems == [script.error]
    script.error = None
    answer = await getattr(stub, method)(request_of(rollout=ROLLOUT, name="beta"))
    assert answer.error == ""


async def test_managed_routes_are_removed_of_the_rollout_that_the_controller_names(
    stub: Any, script: Script
) -> None:
    answer = await stub.RemoveManagedRoutes(pb.RemoveManagedRoutesRequest(rollout=ROLLOUT))
    assert answer.error == ""
    key, spec, _ = script.asked
    assert (str(key), spec.uid) == ("llm/chat", "u")


def test_a_socket_that_nobody_listens_on_is_freed(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "s"
    free_socket(path)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    free_socket(path)
    assert not path.exists()


def test_a_socket_in_use_and_another_file_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(RuntimeError, match="Another process listens"):
            free_socket(path)
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(RuntimeError, match="is no socket"):
        free_socket(file)
