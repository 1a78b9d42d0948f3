"""A client comes back to the server that knows it, by the token of the answer, through Envoy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inference_picker.config import read_config
from inference_picker.director import Settings
from inference_picker.sessions import read_token
from support.picker_rig import MODES, Setup, pool_of, running_setup, whole_stream

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "x-session-token"
CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: session-affinity-scorer}]
"""


async def asked(setup: Setup, token: str = "") -> str:
    """The token that the answer carries, empty for none."""
    body = {"model": "base", "messages": [], "stream": True}
    async with setup.client.post(
        f"{setup.url}/v1/chat/completions", json=body, headers={TOKEN: token} if token else {}
    ) as response:
        assert response.status == 200
        assert await response.read() == whole_stream("base", 5)
        return response.headers.get(TOKEN, "")


def server_of(setup: Setup, token: str) -> int:
    """Which of the servers a token names."""
    found = read_token(token)
    assert found is not None
    return [each.address for each in setup.upstreams].index(found.endpoint)


@pytest.mark.parametrize("mode", MODES)
async def test_a_session_stays_with_its_server_until_that_leaves_the_pool(
    mode: str, tmp_path: Path
) -> None:
    settings = Settings(config=read_config(CONFIG))
    # No answer is watched by chance: the token must come all the same.
    async with running_setup(tmp_path, MODES[mode], settings, watch_share=0.0) as setup:
        token = await asked(setup)
        home = server_of(setup, token)
        served = [len(each.bodies) for each in setup.upstreams]

        for _ in range(6):
            assert await asked(setup, token) == ""
        assert len(setup.upstreams[home].bodies) == served[home] + 6

        setup.source.current = pool_of([setup.upstreams[1 - home]])
        moved = await asked(setup, token)
        assert server_of(setup, moved) == 1 - home

        setup.source.current = pool_of(setup.upstreams)
        assert await asked(setup, moved) == ""
        assert len(setup.upstreams[home].bodies) == served[home] + 6
        await setup.landed()


async def test_a_server_that_answers_500_gets_no_session(tmp_path: Path) -> None:
    settings = Settings(config=read_config(CONFIG))
    async with running_setup(tmp_path, MODES["recommended"], settings) as setup:
        body = {"model": "base", "messages": []}
        async with setup.client.post(
            f"{setup.url}/v1/chat/completions", json=body, headers={"x-test-status": "500"}
        ) as response:
            assert response.status == 500
            assert TOKEN not in response.headers
