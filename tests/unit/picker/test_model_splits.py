"""From InferenceModels and InferenceModelRewrites to splits."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from inference_common.kube import (
    INFERENCEMODEL,
    INFERENCEMODELREWRITE,
    INFERENCEMODELREWRITE_X,
    Resource,
)
from inference_common.names import COMMANDED_ANNOTATION
from inference_picker.model_splits import SplitWatch, inference_models, model_rewrites
from inference_picker.pool import make_snapshot
from inference_picker.splits import ModelSplit, Target


def make_model(name: str = "m", created: str = "2026-01-01T00:00:00Z", **spec: Any) -> Any:
    return {
        "metadata": {"name": name, "creationTimestamp": created},
        "spec": {"modelName": "chat", "poolRef": {"name": "pool"}, **spec},
    }


X = "inference.networking.x-k8s.io"
V1 = "inference.networking.k8s.io"


@pytest.mark.parametrize(
    ("ref", "group", "found"),
    [
        pytest.param({"name": "pool"}, X, True, id="group-left-to-its-default"),
        pytest.param({"name": "pool", "group": X}, X, True, id="old-group"),
        pytest.param({"name": "pool", "group": V1}, V1, True, id="new-group"),
        pytest.param({"name": "pool"}, V1, False, id="default-is-not-the-new-group"),
        pytest.param({"name": "other", "group": X}, X, False, id="other-pool"),
    ],
)
def test_a_split_belongs_to_the_pool_of_its_group_and_name(
    ref: dict[str, str], group: str, found: bool
) -> None:
    assert bool(list(inference_models("pool", group, [make_model(poolRef=ref)]))) is found


def test_weights_are_taken_over_and_missing_ones_are_equal() -> None:
    weighted = make_model(targetModels=[{"name": "a", "weight": 90}, {"name": "b", "weight": 10}])
    unweighted = make_model(targetModels=[{"name": "a"}, {"name": "b"}])
    without = make_model()

    found = [
        next(iter(inference_models("pool", X, [each]))).targets
        for each in (weighted, unweighted, without)
    ]

    assert found == [
        (Target(name="a", weight=90), Target(name="b", weight=10)),
        (Target(name="a", weight=1), Target(name="b", weight=1)),
        (),
    ]


@pytest.mark.parametrize(
    ("mark", "stable"),
    [
        ('{"llm/travel": {"uid": "u", "home": "a"}}', "a"),
        ('{"llm/travel": {"uid": "u", "home": "gone"}}', ""),
        ('{"llm/travel": {"uid": "u", "home": ""}}', ""),
        ("?", ""),
        ("", ""),
    ],
    ids=["told", "no-target", "empty", "unreadable", "absent"],
)
def test_the_plugins_mark_tells_which_target_is_stable(mark: str, stable: str) -> None:
    model = make_model(targetModels=[{"name": "a", "weight": 9}, {"name": "b", "weight": 1}])
    model["metadata"]["annotations"] = {COMMANDED_ANNOTATION: mark}
    assert next(iter(inference_models("pool", X, [model]))).stable == stable


def test_the_oldest_of_two_models_of_one_name_comes_first() -> None:
    young = make_model("a", "2026-02-01T00:00:00Z", targetModels=[{"name": "young"}])
    old = make_model("b", "2026-01-01T00:00:00Z", targetModels=[{"name": "old"}])

    first, _ = inference_models("pool", X, [young, old])

    assert first.targets[0].name == "old"


def make_rewrite(name: str = "r", created: str = "2026-01-01T00:00:00Z", **spec: Any) -> Any:
    return {
        "metadata": {"name": name, "creationTimestamp": created},
        "spec": {"poolRef": {"name": "pool"}, **spec},
    }


def make_rule(*targets: Any, models: tuple[str, ...] = ()) -> Any:
    rule: dict[str, Any] = {"targets": list(targets)}
    if models:
        rule["matches"] = [{"model": {"type": "Exact", "value": model}} for model in models]
    return rule


def to(name: str, weight: int | None = None) -> dict[str, Any]:
    return {"modelRewrite": name} | ({} if weight is None else {"weight": weight})


@pytest.mark.parametrize(
    ("ref", "group", "found"),
    [
        pytest.param({"name": "pool"}, V1, True, id="group-left-to-its-default"),
        pytest.param({"name": "pool", "group": X}, X, True, id="old-group"),
        pytest.param({"name": "pool"}, X, False, id="default-is-not-the-old-group"),
        pytest.param({"name": "other"}, V1, False, id="other-pool"),
    ],
)
def test_a_rewrite_belongs_to_the_pool_of_its_group_and_name(
    ref: dict[str, str], group: str, found: bool
) -> None:
    rewrite = make_rewrite(poolRef=ref, rules=[make_rule(to("v1"))])

    assert bool(list(model_rewrites("pool", group, [rewrite]))) is found


@pytest.mark.parametrize(
    ("targets", "weights"),
    [
        pytest.param([to("a", 90), to("b", 10)], [90, 10], id="weighted"),
        pytest.param([to("a"), to("b")], [1, 1], id="unweighted-are-equal"),
        # llm-d-router director.go, selectWeightedModel: unset ones are never selected.
        pytest.param([to("a", 90), to("b")], [90, 0], id="mixed"),
    ],
)
def test_weights_of_a_rewrite_count_as_upstream_counts_them(
    targets: list[Any], weights: list[int]
) -> None:
    (split,) = model_rewrites("pool", V1, [make_rewrite(rules=[make_rule(*targets)])])

    assert [target.weight for target in split.targets] == weights


def test_an_exact_rule_goes_before_a_generic_one_then_age_then_order() -> None:
    young = make_rewrite(
        "a",
        "2026-02-01T00:00:00Z",
        rules=[make_rule(to("young"), models=("chat",)), make_rule(to("young-generic"))],
    )
    old = make_rewrite(
        "b",
        "2026-01-01T00:00:00Z",
        rules=[
            make_rule(to("generic")),
            make_rule(to("old"), models=("chat", "talk")),
            make_rule(to("late"), models=("chat",)),
            make_rule(to("late-generic")),
        ],
    )

    found = make_snapshot([], model_rewrites("pool", V1, [young, old]))

    assert {model: split.targets[0].name for model, split in found.splits.items()} == {
        "chat": "old",
        "talk": "old",
    }
    assert found.other == ModelSplit(model=None, targets=(Target(name="generic", weight=1),))
    assert found.names == {"chat", "talk", "old", "generic"}


class FakeKube:
    """As much of the client as a SplitWatch uses: kinds that are served, and their objects."""

    def __init__(self, served: dict[Resource, list[Any]]) -> None:
        self.served = served

    async def find(self, group: str, kind: str, version: str) -> Resource | None:
        for each in self.served:
            if (each.group, each.kind, each.version) == (group, kind, version):
                return each
        return None

    async def list(self, resource: Resource, *_: Any) -> Any:
        items = [
            {**each, "metadata": {"namespace": "llm", "resourceVersion": "1", **each["metadata"]}}
            for each in self.served[resource]
        ]
        return {"metadata": {"resourceVersion": "1"}, "items": items}

    async def watch(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield None


async def listed_splits(objects: dict[Resource, list[Any]]) -> list[ModelSplit]:
    """The splits once all kinds are listed."""
    found = SplitWatch(FakeKube(objects), "llm")  # type: ignore[arg-type]
    for watch in found.watches.values():
        watch.start()
    for watch in found.watches.values():
        await watch.known()
    splits = list(found.splits("pool", V1))
    for watch in found.watches.values():
        await watch.stop()
    return splits


@pytest.mark.parametrize(
    ("served", "target"),
    [
        pytest.param({INFERENCEMODELREWRITE_X: "older"}, "older", id="older-group-alone"),
        pytest.param(
            {INFERENCEMODELREWRITE_X: "older", INFERENCEMODELREWRITE: "newer"}, "newer", id="both"
        ),
        pytest.param(
            {INFERENCEMODELREWRITE_X: "older", INFERENCEMODELREWRITE: None},
            None,
            id="newer-group-installed-but-empty",
        ),
        pytest.param({INFERENCEMODELREWRITE: "newer"}, "newer", id="newer-group-alone"),
        pytest.param({}, None, id="none"),
    ],
)
async def test_the_older_group_is_ignored_where_the_newer_one_is_installed(
    served: dict[Resource, str | None], target: str | None
) -> None:
    objects = {
        kind: [make_rewrite(rules=[make_rule(to(name), models=("chat",))])] if name else []
        for kind, name in served.items()
    }
    found = make_snapshot([], await listed_splits(objects))

    assert [split.targets[0].name for split in found.splits.values()] == (
        [target] if target else []
    )


async def test_a_rewrite_goes_before_an_inference_model_of_the_same_name() -> None:
    pool = {"name": "pool", "group": V1}
    objects = {
        INFERENCEMODEL: [make_model(poolRef=pool, targetModels=[{"name": "model"}])],
        INFERENCEMODELREWRITE: [make_rewrite(rules=[make_rule(to("rewrite"), models=("chat",))])],
    }
    found = make_snapshot([], await listed_splits(objects))

    assert found.splits["chat"].targets[0].name == "rewrite"
