"""Probes of an AnalysisRun, with the API server's answers given."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from inference_analysis.argo.quality import QualityProbes
from inference_analysis.argo.subjects import Subject
from inference_analysis.errors import EndpointError, InputError
from inference_analysis.observations import Arm
from inference_analysis.prompts.prompt_sets import example
from inference_analysis.prompts.settings import QualityDocument
from inference_common.errors import KubeError
from inference_common.kube import CONFIGMAP, Resource
from support.scripted_model import Model, models, saying, status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Start = Callable[..., Awaitable[Model]]

SUBJECT = Subject(
    namespace="llm",
    rollout="chat",
    rollout_uid="u",
    run="run",
    run_uid="uid",
    created_s=0.0,
    measured=0,
    background=False,
    canary_hash="6d5f",
    stable_hash="9c1b",
    fraction=1.0,
)
OPTIONS: dict[str, Any] = {"model": "mymodel", "rate": 1000, "retries": 0}


class Answers:
    """What the API server has."""

    def __init__(self, **objects: Any) -> None:
        self.objects = objects

    async def get(self, resource: Resource, name: str, namespace: str) -> Any:
        assert (resource, namespace) == (CONFIGMAP, "llm")
        if name not in self.objects:
            raise KubeError(404, "NotFound", "not found")
        return self.objects[name]

    async def list(self, _: Resource, namespace: str, selector: str) -> Any:
        assert namespace == "llm"
        return {"items": self.objects.get(selector.partition("=")[2], [])}


def pod(name: str, address: str, *, ready: bool = True) -> dict[str, Any]:
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    return {"metadata": {"name": name}, "status": {"podIP": address, "conditions": [condition]}}


def settings(canary: str, stable: str, **more: Any) -> QualityDocument:
    arms = {"canary": {"url": canary}, "stable": {"url": stable}}
    return QualityDocument.model_validate(OPTIONS | arms | more)


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with models() as started:
        yield started


async def unnoted(_: float) -> None:
    """No ledger is kept."""


async def polled(
    probes: QualityProbes, document: QualityDocument, look: str = "uid"
) -> list[dict[str, Any]]:
    """What poll gives in the end."""
    while True:
        found = probes.poll(look, SUBJECT, document, unnoted)
        if found is not None:
            return found
        await asyncio.sleep(0)


async def test_a_probe_runs_beside_its_caller_and_is_kept_for_its_look(start: Start) -> None:
    canary, stable = await start(respond=saying("42")), await start(respond=saying("42"))
    probes = QualityProbes(Answers())  # type: ignore[arg-type]
    document = settings(canary.url, stable.url)
    noted: list[tuple[float, int]] = []

    async def note(begun_s: float) -> None:
        noted.append((begun_s, len(canary.bodies) + len(stable.bodies)))

    assert probes.poll("uid", SUBJECT, document, note) is None
    found = await polled(probes, document)
    # Its beginning was noted before anything was sent.
    ((begun, sent),) = noted
    assert sent == 0
    assert probes.times(SUBJECT).void | {at for at, _ in probes.times(SUBJECT).ended} == {begun}
    assert {p["measure"] for p in found} >= {"quality", "length"}
    assert await polled(probes, document) == found
    assert len(canary.bodies) == len(stable.bodies) == 72
    assert not probes.times(SUBJECT).running
    await probes.close()


async def test_long_answers_are_cut_for_the_ledger(start: Start) -> None:
    canary, stable = await start(respond=saying("no " * 1000)), await start(respond=saying("42"))
    probes = QualityProbes(Answers())  # type: ignore[arg-type]
    found = await polled(probes, settings(canary.url, stable.url))
    assert {len(p["canaryAnswer"]) for p in found} == {302}
    assert max(len(p["canaryReason"]) for p in found) <= 302
    await probes.close()


async def test_a_probe_that_fails_is_begun_again_at_the_next_call(start: Start) -> None:
    canary, stable = await start(respond=status(401)), await start()
    probes = QualityProbes(Answers())  # type: ignore[arg-type]
    document = settings(canary.url, stable.url)
    with pytest.raises(EndpointError, match="answers 401"):
        await polled(probes, document)
    canary.respond = stable.respond
    assert await polled(probes, document)
    await probes.close()


async def test_nothing_is_sent_where_the_ledger_does_not_take_the_beginning(start: Start) -> None:
    canary, stable = await start(), await start()
    probes = QualityProbes(Answers())  # type: ignore[arg-type]

    async def refused(_: float) -> None:
        raise KubeError(403, "Forbidden", "no right")

    document = settings(canary.url, stable.url)
    assert probes.poll("uid", SUBJECT, document, refused) is None
    (probe,) = probes._probes.values()
    await asyncio.wait([probe.task])
    with pytest.raises(EndpointError, match="no right"):
        probes.poll("uid", SUBJECT, document, refused)
    assert canary.bodies == stable.bodies == []
    assert len(probes.times(SUBJECT).void) == 1


async def test_what_still_runs_is_stopped(start: Start) -> None:
    canary, stable = await start(), await start()
    probes = QualityProbes(Answers())  # type: ignore[arg-type]
    begun = asyncio.Event()

    async def note(_: float) -> None:
        begun.set()

    probes.poll("uid", SUBJECT, settings(canary.url, stable.url, rate=0.01), note)
    await begun.wait()
    assert len(probes.times(SUBJECT).running) == 1
    await probes.close()
    assert not probes.times(SUBJECT).running


async def test_prompts_come_from_a_configmap_of_the_rollouts_namespace(start: Start) -> None:
    canary, stable = await start(), await start()
    objects = {"mine": {"data": {"prompts.jsonl": example().decode()}}}
    probes = QualityProbes(Answers(**objects))  # type: ignore[arg-type]
    found = await polled(probes, settings(canary.url, stable.url, promptSet="configmap/mine"))
    assert len({p["id"] for p in found}) == 72
    await probes.close()


@pytest.mark.parametrize(
    ("objects", "problem"),
    [
        pytest.param({}, "ConfigMap llm/mine does not exist", id="absent"),
        pytest.param({"mine": {"data": {}}}, "has no key prompts.jsonl", id="no-key"),
        pytest.param(
            {"mine": {"data": {"prompts.jsonl": "{}"}}},
            "ConfigMap llm/mine: line 1: schema: Field required",
            id="no-prompt-set",
        ),
    ],
)
async def test_a_prompt_set_that_cannot_be_used_is_named(
    objects: dict[str, Any], problem: str
) -> None:
    probes = QualityProbes(Answers(**objects))  # type: ignore[arg-type]
    document = settings("http://127.0.0.1:1", "http://127.0.0.1:2", promptSet="configmap/mine")
    with pytest.raises(InputError, match=problem):
        await polled(probes, document)
    await probes.close()


async def test_only_ready_pods_of_this_rollout_are_asked() -> None:
    objects = {
        "6d5f": [
            pod("chat-6d5f-a", "10.0.0.1"),
            pod("chat-6d5f-b", "10.0.0.2", ready=False),
            pod("other-6d5f-a", "10.0.0.3"),
            pod("chat-6d5f-c", "fd00::1"),
        ]
    }
    probes = QualityProbes(Answers(**objects))  # type: ignore[arg-type]
    assert await probes._pods(SUBJECT, "6d5f", 8000) == [
        "http://10.0.0.1:8000",
        "http://[fd00::1]:8000",
    ]


async def test_a_version_without_a_model_is_named_and_a_release_has_its_adapters() -> None:
    document = QualityDocument.model_validate(
        {"canary": {"url": "http://x"}, "stable": {"url": "http://x"}}
    )
    with pytest.raises(InputError, match=r"quality\.canary\.model: missing"):
        document.endpoints({})
    found = document.endpoints({}, {Arm.CANARY: "helper-v2", Arm.STABLE: "helper-v1"})
    assert [found[arm].model for arm in (Arm.CANARY, Arm.STABLE)] == ["helper-v2", "helper-v1"]


async def test_a_version_without_ready_pods_is_named() -> None:
    probes = QualityProbes(Answers())  # type: ignore[arg-type]
    document = QualityDocument.model_validate(OPTIONS | {"podPort": 8000})
    with pytest.raises(InputError, match="no ready pod of the canary version to ask"):
        await polled(probes, document)
    await probes.close()


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        pytest.param({"model": "m"}, "canary.url: missing", id="no-address"),
        pytest.param(
            {"podPort": 8000, "model": "m", "canary": {"url": "http://u:p@x"}},
            "credentials",
            id="credentials",
        ),
        pytest.param({"podPort": 8000, "model": "m", "timeout": 5}, "no duration", id="duration"),
        pytest.param({"podPort": 8000, "model": "m", "promts": "x"}, "Extra inputs", id="typo"),
    ],
)
def test_settings_that_cannot_be_used_are_named(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        QualityDocument.model_validate(values)
