"""The real Prometheus behind a proxy with TLS that lets in who shows what it asks for."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web

from inference_analysis.argo.settings import analysis_document
from inference_analysis.errors import PrometheusError
from inference_analysis.prometheus import Prometheus
from support.cluster.pki import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.cluster.client import ClusterClient

BASIC = "Basic " + base64.b64encode(b"ann:secret").decode()


@contextlib.asynccontextmanager
async def proxy(
    target: str, folder: Path, wanted: dict[str, str], *, mutual: bool
) -> AsyncIterator[str]:
    """A proxy that answers 401 without these headers; with ``mutual`` it wants a certificate."""
    authority = Authority.create(folder, "ca")
    own = authority.server(folder, "proxy", ["127.0.0.1"])
    authority.client(folder, "client", "analysis")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.certificate)
    context.load_cert_chain(own.certificate, own.key)
    context.verify_mode = ssl.CERT_REQUIRED if mutual else ssl.CERT_NONE

    async def forward(request: web.Request) -> web.Response:
        if any(request.headers.get(name) != value for name, value in wanted.items()):
            return web.Response(status=401, text="who are you?")
        async with (
            aiohttp.ClientSession() as session,
            session.get(target + request.path_qs) as answer,
        ):
            return web.Response(
                status=answer.status, body=await answer.read(), content_type=answer.content_type
            )

    application = web.Application()
    application.router.add_get("/{path:.*}", forward)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def up(settings: dict[str, Any]) -> list[dict[str, Any]]:
    access = analysis_document({"prometheus": settings}).prometheus.access()
    now = time.time()
    with Prometheus(access) as server:
        return server.samples('up{job="plugin"}', since_s=now - 30.0, until_s=now)


CASES = [
    pytest.param({"Authorization": "Bearer abc"}, {"bearerTokenFile": "token"}, False, id="bearer"),
    pytest.param(
        {"Authorization": BASIC},
        {"basicUser": "ann", "basicPasswordFile": "password"},
        False,
        id="basic",
    ),
    pytest.param({"X-Scope-OrgID": "llm"}, {"tenant": "llm"}, False, id="tenant"),
    pytest.param(
        {}, {"clientCertificate": "client.crt", "clientKey": "client.key"}, True, id="mutual-tls"
    ),
]


@pytest.mark.parametrize(("wanted", "settings", "mutual"), CASES)
async def test_samples_come_through_a_door_that_is_opened_and_an_error_from_a_closed_one(
    cluster: ClusterClient,
    tmp_path: Path,
    wanted: dict[str, str],
    settings: dict[str, str],
    mutual: bool,
) -> None:
    (tmp_path / "token").write_text("abc\n")
    (tmp_path / "password").write_text("secret\n")
    files = {
        key: str(tmp_path / value) if key not in {"basicUser", "tenant"} else value
        for key, value in settings.items()
    }
    async with proxy(cluster.prometheus, tmp_path, wanted, mutual=mutual) as url:
        known = {"url": url, "caFile": str(tmp_path / "ca.crt"), "timeout": "5s"}
        (series,) = await asyncio.to_thread(up, known | files)
        assert series["metric"]["job"] == "plugin"
        assert series["values"]
        with pytest.raises(PrometheusError, match=r"bearer-token-file|not reached"):
            await asyncio.to_thread(up, known)
        # Nobody's credentials go to a server whose certificate is not known.
        with pytest.raises(PrometheusError, match="certificate"):
            await asyncio.to_thread(up, {"url": url, "timeout": "5s"} | files)
