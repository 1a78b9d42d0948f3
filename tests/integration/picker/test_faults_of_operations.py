"""What happens to the picker itself, through a real Envoy: restarts, rotated certificates."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ssl
from typing import TYPE_CHECKING, Any

import aiohttp

from inference_picker.pool import StaticSource
from inference_picker.serving import Options, serving
from inference_picker.tls import FilePair, Tls, self_signed
from support.picker_rig import (
    RECOMMENDED,
    WAIT_S,
    envoy_server,
    pool_of,
    running_setup,
    upstream_server,
    whole_stream,
)
from support.ports import reserved_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from inference_picker.serving import Running

BODY = {"model": "base", "stream": True}
WHOLE = whole_stream("base", 5)


class Load:
    """Requests one after another on several lanes until it is told to stop; statuses by count."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = f"{url}/v1/chat/completions"
        self.statuses: list[int] = []
        """Of the requests that began after the last ``forget``."""
        self.stopped = False
        self._era = 0

    async def run(self) -> None:
        await asyncio.gather(*(self._lane() for _ in range(4)))

    async def _lane(self) -> None:
        while not self.stopped:
            era = self._era
            async with self._session.post(self._url, json=BODY) as response:
                body = await response.read()
                assert response.status != 200 or body == WHOLE
                if era == self._era:
                    self.statuses.append(response.status)

    def forget(self) -> None:
        """Count anew, and nothing that has begun already."""
        self._era += 1
        self.statuses.clear()

    async def until(self, count: int) -> None:
        """Wait for this many more answers."""
        goal = len(self.statuses) + count
        async with asyncio.timeout(WAIT_S):
            while len(self.statuses) < goal:  # noqa: ASYNC110 - it looks into other tasks
                await asyncio.sleep(0.01)


async def restarted(
    directory: Path, *, fail_open: bool
) -> AsyncIterator[tuple[str, list[int], Running | None]]:
    """Statuses before, without and after the picker, under load all the time."""
    async with contextlib.AsyncExitStack() as stack:
        upstreams = [await stack.enter_async_context(upstream_server()) for _ in range(2)]
        source = StaticSource(pool_of(upstreams))
        # Between the two pickers nobody else may take it.
        address = f"127.0.0.1:{reserved_port()}"
        options = Options(address=address, metrics_address="127.0.0.1:0")
        picker = contextlib.AsyncExitStack()
        first = await picker.enter_async_context(serving(source, options))
        mode: dict[str, Any] = {**RECOMMENDED, "failure_mode_allow": fail_open}
        members = [each.address for each in upstreams]
        url = await stack.enter_async_context(
            envoy_server(directory, first.port, mode, members=members)
        )
        session = await stack.enter_async_context(aiohttp.ClientSession())
        load = Load(session, url)
        task = asyncio.create_task(load.run())
        await load.until(40)
        yield "before", load.statuses[:], None
        await picker.aclose()
        load.forget()
        await load.until(40)
        yield "without", load.statuses[:], None
        second = await stack.enter_async_context(serving(source, options))
        async with asyncio.timeout(WAIT_S):
            while second.metrics.picks.values == {}:
                await load.until(1)
        load.forget()
        await load.until(40)
        load.stopped = True
        await task
        async with asyncio.timeout(WAIT_S):
            while second.director.flights.counts:  # noqa: ASYNC110 - it looks into other tasks
                await asyncio.sleep(0.01)
        yield "after", load.statuses[:], second


async def test_while_the_picker_restarts_a_pool_that_fails_open_serves_on(tmp_path: Path) -> None:
    found = {when: statuses async for when, statuses, _ in restarted(tmp_path, fail_open=True)}

    assert set(found["before"]) == {200}
    # The exchanges that were running may end in an error; those that begin later do not.
    assert set(found["without"][8:]) == {200}
    assert set(found["after"]) == {200}


async def test_while_the_picker_restarts_a_pool_that_fails_closed_answers_errors_at_once(
    tmp_path: Path,
) -> None:
    found = {when: statuses async for when, statuses, _ in restarted(tmp_path, fail_open=False)}

    assert set(found["before"]) == {200}
    assert set(found["without"][8:]) <= {500, 503}
    assert set(found["after"]) == {200}


def write_pair(directory: Path) -> Tls:
    pair = self_signed(dt.datetime.now(dt.UTC))
    # The key first: a picker that looks in between sees halves of two pairs.
    (directory / "tls.key").write_bytes(pair.key)
    (directory / "tls.crt").write_bytes(pair.certificate)
    return Tls(files=FilePair(directory / "tls.crt", directory / "tls.key"))


async def shown_certificate(port: int) -> bytes:
    """What a new connection is shown, DER."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
    writer.close()
    return shown


async def test_a_rotated_certificate_is_shown_to_new_connections_and_breaks_none(
    tmp_path: Path,
) -> None:
    tls = write_pair(tmp_path)
    async with running_setup(tmp_path, RECOMMENDED, tls=tls) as setup:
        for upstream in setup.upstreams:
            upstream.hold = asyncio.Event()
        running = asyncio.create_task(setup.chat(model="base"))
        await setup.until(lambda: setup.metric("in_flight") == 1)
        before = await shown_certificate(setup.picker.port)

        write_pair(tmp_path)

        async with asyncio.timeout(WAIT_S):
            while await shown_certificate(setup.picker.port) == before:
                pass
        for upstream in setup.upstreams:
            assert upstream.hold is not None
            upstream.hold.set()
        assert await running == (200, WHOLE)
        assert (await setup.chat(model="base"))[0] == 200


async def test_a_broken_certificate_leaves_the_old_one_in_use(tmp_path: Path) -> None:
    tls = write_pair(tmp_path)
    async with running_setup(tmp_path, RECOMMENDED, tls=tls) as setup:
        before = await shown_certificate(setup.picker.port)
        (tmp_path / "tls.crt").write_bytes(b"no certificate")

        assert await shown_certificate(setup.picker.port) == before
        assert (await setup.chat(model="base"))[0] == 200
