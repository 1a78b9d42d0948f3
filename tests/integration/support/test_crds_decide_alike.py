"""Our compact CRDs accept, default and refuse what the upstream ones do, on a real API server.

The upstream definitions are installed beside ours under a disguise: their group with a word in
front. They lie in ``../shared/crds``, outside the repository; where that folder is absent ours are
held against the expected outcomes alone, and the test that says so is skipped with that reason.
"""

from __future__ import annotations

import copy
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
import yaml

from inference_common.errors import KubeError
from inference_common.kube import CRD, Kube, PatchKind, Resource
from support.cluster.objects import create, established
from support.repository import MANIFESTS, ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.cluster.client import ClusterClient

Object = dict[str, Any]
Change = tuple[tuple[str | int, ...], Any, bool]
UPSTREAM = ROOT.parent / "shared" / "crds"
OURS = MANIFESTS / "crds"
X = "inference.networking.x-k8s.io"
V1 = "inference.networking.k8s.io"
LLMD = "llm-d.ai"
NAMESPACE = "default"
LONG = "a" * 254

MODEL: Object = {"modelName": "chat", "poolRef": {"name": "pool"}}
POOL: Object = {
    "selector": {"matchLabels": {"app": "vllm"}},
    "targetPorts": [{"number": 8000}],
    "endpointPickerRef": {"name": "picker", "port": {"number": 9002}},
}
POOL_X: Object = {
    "selector": {"app": "vllm"},
    "targetPortNumber": 8000,
    "extensionRef": {"name": "picker"},
}
TARGETS = [{"modelRewrite": "v1", "weight": 90}, {"modelRewrite": "v2", "weight": 10}]
REWRITE: Object = {
    "poolRef": {"name": "pool"},
    "rules": [{"matches": [{"model": {"value": "chat"}}], "targets": TARGETS}],
}
OBJECTIVE: Object = {"poolRef": {"name": "pool"}, "priority": 5}

BASES = {
    f"inferencemodels.{X}": MODEL,
    f"inferencepools.{V1}": POOL,
    f"inferencepools.{X}": POOL_X,
    f"inferencemodelrewrites.{X}": REWRITE,
    f"inferencemodelrewrites.{LLMD}": REWRITE,
    f"inferenceobjectives.{X}": OBJECTIVE,
    f"inferenceobjectives.{LLMD}": OBJECTIVE,
}
REMOVED = object()
GOOD, BAD = True, False

# What is changed in the base object (path below spec, value), and whether it is accepted then.
POOL_REFS: list[Change] = [
    (("poolRef", "kind"), "Other", GOOD),
    (("poolRef", "kind"), "", BAD),
    (("poolRef", "kind"), "not-a-kind!", BAD),
    (("poolRef", "group"), "", GOOD),
    (("poolRef", "group"), "Not.A.Group", BAD),
    (("poolRef", "group"), LONG, BAD),
    (("poolRef", "name"), "", BAD),
    (("poolRef", "name"), LONG, BAD),
    (("poolRef", "name"), REMOVED, BAD),
    (("poolRef",), REMOVED, BAD),
]
REWRITES: list[Change] = [
    *POOL_REFS,
    ((), None, GOOD),
    (("rules",), REMOVED, BAD),
    (("rules",), [], GOOD),
    (("rules",), [{}], GOOD),
    (("rules",), [{"targets": []}], BAD),
    (("rules", 0, "matches"), REMOVED, GOOD),
    (("rules", 0, "matches"), [{}], BAD),
    (("rules", 0, "matches", 0, "model", "value"), "", BAD),
    (("rules", 0, "matches", 0, "model", "type"), "Exact", GOOD),
    (("rules", 0, "matches", 0, "model", "type"), "Prefix", BAD),
    (("rules", 0, "targets", 0, "modelRewrite"), REMOVED, BAD),
    (("rules", 0, "targets", 0, "modelRewrite"), "", GOOD),
    (("rules", 0, "targets", 0, "weight"), REMOVED, GOOD),
    (("rules", 0, "targets", 0, "weight"), 0, BAD),
    (("rules", 0, "targets", 0, "weight"), 1, GOOD),
    (("rules", 0, "targets", 0, "weight"), 1_000_000, GOOD),
    (("rules", 0, "targets", 0, "weight"), 1_000_001, BAD),
    (("rules", 0, "targets", 0, "weight"), "10", BAD),
    (("rules", 0, "targets"), [{"modelRewrite": f"v{n}"} for n in range(20)], GOOD),
    (("unknown",), 1, GOOD),
]
OBJECTIVES: list[Change] = [
    *POOL_REFS,
    ((), None, GOOD),
    (("priority",), REMOVED, GOOD),
    (("priority",), -7, GOOD),
    (("priority",), 1.5, BAD),
    (("priority",), "high", BAD),
]
MODELS: list[Change] = [
    *POOL_REFS,
    ((), None, GOOD),
    (("modelName",), REMOVED, BAD),
    (("modelName",), "m" * 257, BAD),
    (("criticality",), "Critical", GOOD),
    (("criticality",), "Urgent", BAD),
    (("targetModels",), [{"name": "v1"}, {"name": "v2"}], GOOD),
    (("targetModels",), [{"name": "v1", "weight": 1}, {"name": "v2", "weight": 9}], GOOD),
    (("targetModels",), [{"name": "v1", "weight": 1}, {"name": "v2"}], BAD),
    (("targetModels",), [{"name": "v1", "weight": 0}], BAD),
    (("targetModels",), [{"name": "v1", "weight": 1_000_001}], BAD),
    (("targetModels",), [{"weight": 1}], BAD),
    (("targetModels",), [{"name": f"v{n}"} for n in range(10)], GOOD),
    (("targetModels",), [{"name": f"v{n}"} for n in range(11)], BAD),
]
POOLS: list[Change] = [
    ((), None, GOOD),
    (("appProtocol",), "kubernetes.io/h2c", GOOD),
    (("appProtocol",), "smtp", BAD),
    (("selector",), REMOVED, BAD),
    (("selector", "matchLabels"), {}, BAD),
    (("selector", "matchLabels", "app"), "no spaces", BAD),
    (("targetPorts",), [], BAD),
    (("targetPorts",), [{"number": 1}, {"number": 1}], BAD),
    (("targetPorts",), [{"number": n} for n in range(1, 9)], GOOD),
    (("targetPorts",), [{"number": n} for n in range(1, 10)], BAD),
    (("targetPorts", 0, "number"), 65536, BAD),
    (("endpointPickerRef",), REMOVED, BAD),
    (("endpointPickerRef", "port"), REMOVED, BAD),
    (("endpointPickerRef",), {"kind": "Other", "name": "picker"}, GOOD),
    (("endpointPickerRef", "failureMode"), "FailOpen", GOOD),
    (("endpointPickerRef", "failureMode"), "FailSoftly", BAD),
]
POOLS_X: list[Change] = [
    ((), None, GOOD),
    (("selector",), REMOVED, BAD),
    (("selector", "app"), "no spaces", BAD),
    (("targetPortNumber",), 0, BAD),
    (("targetPortNumber",), REMOVED, BAD),
    (("extensionRef",), REMOVED, BAD),
    (("extensionRef", "portNumber"), 65536, BAD),
    (("extensionRef", "failureMode"), "FailOpen", GOOD),
    (("extensionRef", "kind"), "", BAD),
]
CHANGES: dict[str, list[Change]] = {
    f"inferencemodels.{X}": MODELS,
    f"inferencepools.{V1}": POOLS,
    f"inferencepools.{X}": POOLS_X,
    f"inferencemodelrewrites.{X}": REWRITES,
    f"inferencemodelrewrites.{LLMD}": REWRITES,
    f"inferenceobjectives.{X}": OBJECTIVES,
    # Its priority is of 32 bits; that of the older group is not.
    f"inferenceobjectives.{LLMD}": [*OBJECTIVES, (("priority",), 2**31, BAD)],
}
CASES = [
    pytest.param(name, path, value, accepted, id=f"{name}-{number}-{'.'.join(map(str, path))}")
    for name, changes in CHANGES.items()
    for number, (path, value, accepted) in enumerate(changes)
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Definitions:
    """Both definitions of each type by the CRD's name; upstream's is None where it is absent."""

    kube: Kube
    pairs: dict[str, tuple[Resource, Resource | None]]


def read(folder: Path, name: str) -> Object | None:
    file = folder / f"{name}.yaml"
    if not file.exists():
        return None
    found: Object = yaml.safe_load(file.read_text())
    return found


def disguised(crd: Object, word: str) -> Object:
    """The definition under another group, as if it were another type."""
    crd = copy.deepcopy(crd)
    group = f"{word}.{crd['spec']['group']}"
    crd["spec"]["group"] = group
    crd["metadata"] = {
        "name": f"{crd['spec']['names']['plural']}.{group}",
        "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
    }
    crd.pop("status", None)
    return crd


def resource_of(crd: Object) -> Resource:
    spec = crd["spec"]
    names = spec["names"]
    return Resource(spec["group"], spec["versions"][0]["name"], names["plural"], names["kind"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def definitions(cluster: ClusterClient) -> AsyncIterator[Definitions]:
    kube = await Kube.connect(cluster.kubeconfig)
    word = f"t{secrets.token_hex(3)}"
    pairs: dict[str, tuple[Resource, Resource | None]] = {}
    installed = []
    for name in BASES:
        ours, upstream = read(OURS, name), read(UPSTREAM, name)
        assert ours is not None
        if upstream is None:
            pairs[name] = (resource_of(ours), None)
            continue
        crd = disguised(upstream, word)
        await create(kube, crd)
        installed.append(crd["metadata"]["name"])
        pairs[name] = (resource_of(ours), resource_of(crd))
    try:
        await established(kube, installed)
        yield Definitions(kube=kube, pairs=pairs)
    finally:
        for name in installed:
            await kube.delete(CRD, name)
        await kube.close()


def change(spec: Object, path: tuple[str | int, ...], value: Any) -> Object:
    spec = copy.deepcopy(spec)
    if not path:
        return spec
    at: Any = spec
    for part in path[:-1]:
        at = at[part]
    if value is REMOVED:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return spec


async def decide(kube: Kube, resource: Resource, spec: Object) -> tuple[bool, Any]:
    """Whether it is accepted, and the spec with its defaults or the refusal."""
    body = {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": "case"},
        "spec": spec,
    }
    try:
        found = await created(kube, resource, body)
    except KubeError as error:
        if error.status not in {400, 422}:
            raise
        return False, error.message.replace(resource.group, "GROUP")
    return True, found["spec"]


async def created(kube: Kube, resource: Resource, body: Object) -> Object:
    """The answer to a dry run, once the API server serves the type that it has established."""
    for _ in range(100):
        try:
            return await kube.create(resource, body, NAMESPACE, dry_run=True)
        except KubeError as error:
            if not error.not_found:
                raise
    raise AssertionError(f"{resource.plural}.{resource.group} is established but not served")


def test_upstream_definitions_are_there_to_compare_with() -> None:
    if not UPSTREAM.is_dir():
        pytest.skip(
            f"{UPSTREAM} is absent: our CRDs are held against the expected outcomes alone, not "
            "against upstream's"
        )
    assert {file.stem for file in UPSTREAM.glob("*.yaml")} == set(BASES)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("name", "path", "value", "accepted"), CASES)
async def test_both_decide_alike(
    definitions: Definitions,
    name: str,
    path: tuple[str | int, ...],
    value: Any,
    *,
    accepted: bool,
) -> None:
    ours, upstream = definitions.pairs[name]
    spec = change(BASES[name], path, value)
    decision, answer = await decide(definitions.kube, ours, spec)
    assert decision is accepted, answer
    if upstream is not None:
        assert await decide(definitions.kube, upstream, spec) == (decision, answer)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_name_of_a_model_never_changes(definitions: Definitions) -> None:
    name = f"case-{secrets.token_hex(3)}"
    refusals = []
    for resource in definitions.pairs[f"inferencemodels.{X}"]:
        if resource is None:
            continue
        body = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": name},
            "spec": MODEL,
        }
        await definitions.kube.create(resource, body, NAMESPACE)
        try:
            other = {"spec": {"modelName": "other"}}
            with pytest.raises(KubeError) as found:
                await definitions.kube.patch(
                    resource, name, other, NAMESPACE, kind=PatchKind.MERGE, dry_run=True
                )
        finally:
            await definitions.kube.delete(resource, name, NAMESPACE)
        assert found.value.invalid
        refusals.append(found.value.message.replace(resource.group, "GROUP"))
    assert "modelName is immutable" in refusals[0]
    assert len(set(refusals)) == 1
