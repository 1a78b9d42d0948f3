from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from inference_common.errors import KubeError
from inference_plugin.events import Note, Recorder, event_body
from inference_plugin.rollouts import RolloutKey
from inference_plugin.telemetry import Metrics

KEY = RolloutKey(namespace="llm", name="chat")


def note(reason: str = "WaitingForPicker", message: str = "not ready") -> Note:
    return Note(rollout=KEY, uid="uid", reason=reason, message=message, kind="Warning")


class Desk:
    """A recorder with a clock of its own, and the Events that reached the API server."""

    def __init__(self) -> None:
        self.now = 0.0
        self.created: list[dict[str, Any]] = []
        self.patched: list[dict[str, Any]] = []
        self.refusal: KubeError | None = None
        self.registry = CollectorRegistry()
        self.recorder = Recorder(cast("Any", self), Metrics(self.registry), clock=lambda: self.now)

    async def create(self, _: Any, body: dict[str, Any], namespace: str) -> dict[str, Any]:
        if self.refusal is not None:
            raise self.refusal
        assert namespace == "llm"
        self.created.append(body)
        return body

    async def patch(
        self, _: Any, name: str, body: dict[str, Any], namespace: str, *, kind: Any
    ) -> dict[str, Any]:
        del namespace, kind
        self.patched.append({"name": name, **body})
        return body

    async def written(self) -> None:
        task = asyncio.create_task(self.recorder.run())
        # Nothing in here waits for I/O: each Event takes a few turns of the loop.
        for _ in range(200):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_what_lasts_is_told_once(desk: Desk) -> None:
    assert [desk.recorder.standing(note()) for _ in range(3)] == [True, False, False]
    await desk.written()
    assert len(desk.created) == 1


async def test_what_lasts_long_is_counted_on_the_same_event(desk: Desk) -> None:
    desk.recorder.standing(note())
    await desk.written()
    desk.now = 301.0
    desk.recorder.standing(note())
    await desk.written()
    assert len(desk.created) == 1
    [patch] = desk.patched
    assert (patch["name"], patch["count"]) == (desk.created[0]["metadata"]["name"], 2)


async def test_other_words_are_news_but_not_every_second(desk: Desk) -> None:
    desk.recorder.standing(note(message="0.1 s ago"))
    desk.now = 1.0
    assert not desk.recorder.standing(note(message="1.1 s ago"))
    desk.now = 31.0
    assert desk.recorder.standing(note(message="31.1 s ago"))


async def test_what_has_passed_is_news_when_it_comes_back(desk: Desk) -> None:
    desk.recorder.standing(note())
    desk.recorder.clear("uid", "WaitingForPicker")
    assert desk.recorder.standing(note())


async def test_what_happens_is_told_every_time_up_to_a_rate(desk: Desk) -> None:
    for _ in range(40):
        desk.recorder.change(note("WeightsWritten"))
    await desk.written()
    # A burst of 25, then ten a second.
    assert len(desk.created) == 25
    desk.now = 1.0
    for _ in range(40):
        desk.recorder.change(note("WeightsWritten"))
    await desk.written()
    assert len(desk.created) == 35


async def test_a_refused_event_stops_nothing(desk: Desk) -> None:
    desk.refusal = KubeError(403, "Forbidden", "no")
    desk.recorder.change(note())
    await desk.written()
    desk.refusal = None
    desk.recorder.change(note())
    await desk.written()
    assert len(desk.created) == 1


def test_an_event_is_about_the_rollout_and_fits() -> None:
    body = event_body(note(message="x" * 5000), 1)
    assert body["involvedObject"] == {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "namespace": "llm",
        "name": "chat",
        "uid": "uid",
    }
    # The API server refuses notes above 1 KiB.
    assert len(body["message"].encode()) <= 1024
