"""Kinds that only a configuration names, looked up on the API server."""

from __future__ import annotations

from typing import Any

import pytest

from inference_common.errors import KubeError
from inference_common.kube import Resource
from inference_plugin.config import ModelListConfig
from inference_plugin.errors import ConfigError
from inference_plugin.kinds import Kinds

Object = dict[str, Any]
MODEL = Resource("models.example.com", "v1beta3", "models", "Model")
LISTED = ModelListConfig(
    kind=MODEL.kind, group=MODEL.group, name="travel", listPath="spec.versions"
)
ENTRY = {"properties": {"name": {"type": "string"}, "weight": {"type": "integer"}}}
HOLDS = {"versions": {"type": "array", "items": ENTRY}}
LACKS: Object = {"targets": {}}


class FakeKube:
    """As much of the client as Kinds uses; it counts what it is asked."""

    def __init__(self, fields: Object | None, *, status: int = 0) -> None:
        self.fields = fields
        self.status = status
        self.asked: list[str] = []

    async def find(self, group: str, kind: str) -> Resource | None:
        self.asked.append(f"find {kind}.{group}")
        return None if self.fields is None else MODEL

    async def raw(self, path: str) -> Object:
        self.asked.append(path)
        about = [{"group": MODEL.group, "version": MODEL.version, "kind": MODEL.kind}]
        schema = {
            "x-kubernetes-group-version-kind": about,
            "properties": {"spec": {"properties": self.fields}},
        }
        return {"components": {"schemas": {"com.example.models.Model": schema}}}

    async def list(self, resource: Resource, **_: Any) -> Object:
        self.asked.append(f"list {resource.plural}")
        if self.status:
            raise KubeError(self.status, "Forbidden", "no")
        return {"items": []}


class Clock:
    """A clock that the test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def make_kinds(kube: FakeKube) -> tuple[Kinds, Clock]:
    clock = Clock()
    return Kinds(kube, clock), clock  # type: ignore[arg-type]


async def test_a_kind_is_looked_up_once() -> None:
    kube = FakeKube(HOLDS)
    kinds, clock = make_kinds(kube)
    assert await kinds.learn(LISTED) == MODEL
    assert kube.asked == [
        "find Model.models.example.com",
        "/openapi/v3/apis/models.example.com/v1beta3",
        "list models",
    ]
    clock.now += 3600
    assert await kinds.learn(LISTED) is None
    assert len(kube.asked) == 3
    known = kinds.get(MODEL.group, MODEL.kind)
    assert known is not None
    assert known.resource == MODEL
    assert kinds.schema(MODEL)["properties"]["spec"]["properties"] == HOLDS


@pytest.mark.parametrize("fields", [None, LACKS], ids=["not-served", "without-the-list"])
async def test_what_is_missing_is_asked_for_again_but_not_at_each_call(
    fields: Object | None,
) -> None:
    kube = FakeKube(fields)
    kinds, clock = make_kinds(kube)
    for _ in range(5):
        assert await kinds.learn(LISTED) is None
    assert sum(line.startswith("find") for line in kube.asked) == 1
    assert "list models" not in kube.asked
    kube.fields = HOLDS
    clock.now += 10
    assert await kinds.learn(LISTED) == MODEL


async def test_a_kind_that_is_gone_is_no_longer_known() -> None:
    kube = FakeKube(LACKS)
    kinds, clock = make_kinds(kube)
    await kinds.learn(LISTED)
    assert kinds.get(MODEL.group, MODEL.kind) is not None
    kube.fields = None
    clock.now += 10
    await kinds.learn(LISTED)
    assert kinds.get(MODEL.group, MODEL.kind) is None
    assert kinds.schema(MODEL) == {}


async def test_a_kind_that_may_not_be_read_is_refused_with_the_rights_it_needs() -> None:
    kube = FakeKube(HOLDS, status=403)
    kinds, clock = make_kinds(kube)
    for _ in range(3):
        with pytest.raises(ConfigError) as found:
            await kinds.learn(LISTED)
        assert "may not read models.models.example.com" in str(found.value)
        assert "get, list, watch and patch" in str(found.value)
    assert kube.asked.count("list models") == 1
    assert kinds.get(MODEL.group, MODEL.kind) is None
    kube.status = 0
    clock.now += 10
    assert await kinds.learn(LISTED) == MODEL


async def test_trouble_with_the_api_server_is_no_fault_of_the_configuration() -> None:
    kube = FakeKube(HOLDS, status=503)
    kinds, _ = make_kinds(kube)
    with pytest.raises(KubeError):
        await kinds.learn(LISTED)
    kube.status = 0
    assert await kinds.learn(LISTED) == MODEL
