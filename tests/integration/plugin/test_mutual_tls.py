"""The real bridge and the real server over mutual TLS, on a real API server.

What the bridge does with certificates is tested in Go (plugin/bridge/tls_test.go); here the server
is the one that is shipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from cryptography import x509
from grpc import aio

from inference_common.kube import LEASE, Kube
from inference_plugin._pb import traffic_router_pb2 as pb
from inference_plugin._pb import traffic_router_pb2_grpc as pb_grpc
from support.cluster.pki import Authority, Issued
from support.ports import reserved_port
from support.toolchain import ensure
from support.toolchain.recipe import RECIPES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.cluster.client import ClusterClient

# argo-rollouts v1.10.2, rollout/trafficrouting/plugin/client/client.go:25-29.
CONTROLLER = {"ARGO_ROLLOUTS_RPC_PLUGIN": "trafficrouter"}
COMMAND = str(Path(sys.executable).with_name("inference-rollouts"))
BRIDGE = "argo-rollouts-bridge"


@dataclass(frozen=True, slots=True)
class Running:
    """A server process, where it listens, and what it and its callers have as certificates."""

    process: asyncio.subprocess.Process
    address: str
    folder: Path
    authority: Authority
    log: Path

    async def until_logged(self, text: str, count: int = 1) -> None:
        async with asyncio.timeout(180):
            while (await asyncio.to_thread(self.log.read_text)).count(text) < count:
                assert self.process.returncode is None, await asyncio.to_thread(self.log.read_text)
                await asyncio.sleep(0.05)

    def issue(self, name: str, user: str = BRIDGE, authority: Authority | None = None) -> Issued:
        return (authority or self.authority).client(self.folder, name, user)

    @contextlib.asynccontextmanager
    async def caller(self, issued: Issued) -> AsyncIterator[Any]:
        credentials = grpc.ssl_channel_credentials(
            self.authority.certificate.read_bytes(),
            issued.key.read_bytes(),
            issued.certificate.read_bytes(),
        )
        async with aio.secure_channel(self.address, credentials) as channel:
            yield pb_grpc.TrafficRouterStub(channel)


@pytest.fixture
async def server(cluster: ClusterClient, tmp_path: Path) -> AsyncIterator[Running]:
    authority = Authority.create(tmp_path, "ca")
    authority.server(tmp_path, "server", ["127.0.0.1"])
    (tmp_path / "client-ca.crt").write_bytes(authority.certificate.read_bytes())
    address = f"127.0.0.1:{reserved_port()}"
    log = tmp_path / "server.log"
    # It answers, and leaves all that it could look after to the cluster's own server.
    lease = f"held-{secrets.token_hex(4)}"
    spec = {"holderIdentity": "somebody", "leaseDurationSeconds": 3600}
    kube = await Kube.connect(cluster.kubeconfig)
    await kube.create(LEASE, {"metadata": {"name": lease}, "spec": spec}, "default")
    await kube.close()
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            COMMAND,
            *("plugin", "serve", "--address", address),
            *(
                "--tls-cert",
                str(tmp_path / "server.crt"),
                "--tls-key",
                str(tmp_path / "server.key"),
            ),
            *("--tls-client-ca", str(tmp_path / "client-ca.crt"), "--tls-client-name", BRIDGE),
            *("--connection-age-s", "1", "--kubeconfig", cluster.kubeconfig, "--log-json"),
            stdout=file,
            stderr=file,
        )
    running = Running(process, address, tmp_path, authority, log)
    try:
        await running.until_logged('"event": "ready"')
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def describe(stub: Any) -> Any:
    return await stub.Describe(pb.DescribeRequest(), timeout=60)


async def test_a_caller_with_the_right_name_is_answered(server: Running) -> None:
    async with server.caller(server.issue("caller")) as stub:
        assert (await describe(stub)).ready


async def test_a_caller_with_another_name_is_told_so(server: Running) -> None:
    async with server.caller(server.issue("caller", user="somebody")) as stub:
        with pytest.raises(aio.AioRpcError) as found:
            await describe(stub)
    assert found.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "of somebody" in (found.value.details() or "")


async def test_a_caller_of_another_authority_gets_no_connection(server: Running) -> None:
    stranger = Authority.create(server.folder, "stranger-ca")
    async with server.caller(server.issue("stranger", authority=stranger)) as stub:
        with pytest.raises(aio.AioRpcError) as found:
            await describe(stub)
    assert found.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_caller_without_a_certificate_gets_no_connection(server: Running) -> None:
    credentials = grpc.ssl_channel_credentials(server.authority.certificate.read_bytes())
    async with aio.secure_channel(server.address, credentials) as channel:
        with pytest.raises(aio.AioRpcError) as found:
            await describe(pb_grpc.TrafficRouterStub(channel))
    assert found.value.code() is grpc.StatusCode.UNAVAILABLE


def serial(server: Running, issued: Issued) -> int:
    """Serial number of the certificate that the server shows."""
    context = ssl.create_default_context(cafile=str(server.authority.certificate))
    context.load_cert_chain(issued.certificate, issued.key)
    host, _, port = server.address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        assert secured.version() == "TLSv1.3"
        shown = secured.getpeercert(binary_form=True) or b""
    return x509.load_der_x509_certificate(shown).serial_number


async def test_a_renewed_certificate_is_shown_without_a_lost_call(server: Running) -> None:
    caller = server.issue("caller")
    before = await asyncio.to_thread(serial, server, caller)
    async with server.caller(caller) as stub:
        answered = 0

        async def calls() -> None:
            nonlocal answered
            while True:
                await describe(stub)
                answered += 1

        task = asyncio.create_task(calls())
        server.authority.server(server.folder, "server", ["127.0.0.1"])
        await server.until_logged("certificate renewed")
        after = await asyncio.to_thread(serial, server, caller)
        # Connections end after a second: all calls since went through several of them.
        goal = answered + 200
        async with asyncio.timeout(180):
            while answered < goal and not task.done():  # noqa: ASYNC110 - a counter
                await asyncio.sleep(0.05)
        assert not task.done(), task.exception()
        task.cancel()
    assert after != before


async def test_broken_files_are_not_taken(server: Running) -> None:
    caller = server.issue("caller")
    (server.folder / "server.crt").write_text("no certificate")
    async with server.caller(caller) as stub:
        assert (await describe(stub)).ready
    await server.until_logged("new certificate not taken")


async def test_the_bridge_introduces_itself_over_tls_and_doctor_sees_it(
    server: Running, cluster: ClusterClient
) -> None:
    others = [recipe.name for recipe in RECIPES if recipe.name != "bridge"]
    binary = (await asyncio.to_thread(ensure, without=others)).binary("bridge")
    mine = server.issue("bridge")
    authority = str(server.authority.certificate)
    process = await asyncio.create_subprocess_exec(
        binary,
        *("--server", f"dns:///{server.address}", "--tls-ca", authority),
        *("--tls-cert", str(mine.certificate), "--tls-key", str(mine.key)),
        env=os.environ | CONTROLLER,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        # Again after each connection, of which there is one a second.
        await server.until_logged("controller connected", 2)
        doctor = await asyncio.create_subprocess_exec(
            COMMAND,
            *("plugin", "doctor", "--server", server.address, "--tls-ca", authority),
            *("--tls-cert", str(mine.certificate), "--tls-key", str(mine.key)),
            *("--kubeconfig", cluster.kubeconfig, "--namespace", "default"),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await asyncio.wait_for(doctor.communicate(), 180)
    finally:
        process.kill()
        await process.wait()
    lines = [line.split() for line in out.decode().splitlines()]
    found = {words[1].rstrip(":"): words[0] for words in lines if len(words) > 1}
    assert (found["server"], found["bridge"]) == ("ok", "ok"), out.decode()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param([], "give --socket, --address, or both", id="nothing"),
        pytest.param(["--address", "127.0.0.1:1"], "needs --tls-cert", id="no-certificate"),
        pytest.param(["--socket", "s", "--tls-cert", "c"], "belong to --address", id="no-address"),
        pytest.param(["--socket", "s", "--lease", "x"], "is not NAMESPACE/NAME", id="lease"),
    ],
)
async def test_options_that_do_not_fit_are_refused(arguments: list[str], says: str) -> None:
    process = await asyncio.create_subprocess_exec(
        COMMAND, "plugin", "serve", *arguments, stderr=asyncio.subprocess.PIPE
    )
    _, err = await process.communicate()
    assert process.returncode == 2
    assert says in " ".join(err.decode().replace("│", " ").split())
