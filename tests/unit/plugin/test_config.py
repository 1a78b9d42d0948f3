from __future__ import annotations

import json
from typing import Any

import pytest

from inference_plugin.config import DestinationMode, parse_config
from inference_plugin.errors import ConfigError

PATH = 'spec.strategy.canary.trafficRouting.plugins["inference-rollouts/router"]'


def parse(config: Any) -> Any:
    return parse_config(json.dumps(config).encode())


@pytest.mark.parametrize(
    ("config", "mode"),
    [
        pytest.param(
            {"httpRoute": "chat", "inferencePools": ["a", "b"]},
            DestinationMode.HASH_ADDRESSED,
            id="two-pools",
        ),
        pytest.param(
            {"httpRoutes": [{"name": "chat"}], "destinationKind": "Service"},
            DestinationMode.NAMED,
            id="named-by-the-revision",
        ),
        pytest.param(
            {"httpRoute": "chat", "static": {"stable": "a", "canary": "b"}},
            DestinationMode.STATIC,
            id="fixed-names",
        ),
        pytest.param({"httpRoute": "chat"}, DestinationMode.STATIC, id="services"),
        pytest.param(
            {"httpRoute": "chat", "grpcRoute": "chat", "inferencePools": ["a", "b"]},
            DestinationMode.HASH_ADDRESSED,
            id="routes-of-both-kinds",
        ),
        pytest.param({"inferenceModel": "travel"}, DestinationMode.MODEL, id="adapters"),
        pytest.param(
            {"inferenceModelRewrite": {"name": "travel", "model": "chat"}},
            DestinationMode.MODEL,
            id="targets-of-a-rewrite",
        ),
        pytest.param(
            {
                "modelList": {
                    "kind": "InferenceModel",
                    "group": "inference.networking.x-k8s.io",
                    "name": "travel",
                    "listPath": "spec.versions",
                }
            },
            DestinationMode.MODEL,
            id="a-list-anywhere",
        ),
    ],
)
def test_the_keys_given_decide_how_hashes_become_destinations(
    config: Any, mode: DestinationMode
) -> None:
    assert parse(config).mode is mode


@pytest.mark.parametrize(
    ("config", "message"),
    [
        pytest.param({}, "exactly one of httpRoute, httpRoutes, grpcRoute,", id="nothing"),
        pytest.param(
            {"httpRoute": "a", "inferenceModel": "m"},
            "found httpRoute and inferenceModel",
            id="route-and-model",
        ),
        pytest.param(
            {"grpcRoute": "a", "grpcRoutes": [{"name": "b"}]},
            "found grpcRoute and grpcRoutes",
            id="grpc-routes-said-twice",
        ),
        pytest.param(
            {"httpRoute": "a", "grpcRoute": "a", "inferenceModel": "m"},
            "found httpRoute and grpcRoute and inferenceModel",
            id="routes-and-a-model",
        ),
        pytest.param(
            {"grpcRoutes": [{"name": "a"}, {"name": "a"}]},
            "grpcRoutes names a route twice: a, a",
            id="grpc-route-twice",
        ),
        pytest.param(
            {"httpRoute": "a", "inferencePools": ["p"]},
            f"{PATH}.inferencePools[1]: Field required",
            id="one-pool",
        ),
        pytest.param(
            {"httpRoute": "a", "inferencePools": ["p", "p"]},
            "inferencePools must name two pools, found 'p' twice",
            id="same-pool-twice",
        ),
        pytest.param(
            {"httpRoute": "a", "inferencePools": ["p", "q"], "destinationKind": "Service"},
            "found inferencePools and destinationKind",
            id="two-kinds",
        ),
        pytest.param(
            {"inferenceModel": "m", "inferencePools": ["p", "q"]},
            "inferencePools does not go with inferenceModel",
            id="pools-for-a-model",
        ),
        pytest.param(
            {"inferenceModelRewrite": {"name": "m"}, "destinationKind": "Service"},
            "destinationKind does not go with inferenceModelRewrite",
            id="backends-for-a-rewrite",
        ),
        pytest.param(
            {"inferenceModelRewrite": {"name": "m", "group": "example.com"}},
            "group must be one of llm-d.ai, inference.networking.x-k8s.io, not 'example.com'",
            id="group-of-a-rewrite",
        ),
        pytest.param(
            {"inferenceModelRewrite": {"name": "m", "model": "chat", "rule": 0}},
            f"{PATH}.inferenceModelRewrite: at most one of model and rule may be given",
            id="a-rule-said-twice",
        ),
        pytest.param(
            {"modelList": {"kind": "K", "group": "g.io", "name": "m", "listPath": "status.x"}},
            f"{PATH}.modelList.listPath: String should match pattern",
            id="a-list-outside-the-spec",
        ),
        pytest.param(
            {"modelList": {"kind": "K", "group": "g.io", "name": "m", "listPath": "spec.a[0].b"}},
            f"{PATH}.modelList.listPath: String should match pattern",
            id="a-list-in-a-list",
        ),
        pytest.param({"httpRoutes": [{}]}, f"{PATH}.httpRoutes[0].name: Field required", id="name"),
        pytest.param(
            {"httpRoute": "a", "settleSeconds": -1},
            f"{PATH}.settleSeconds: Input should be greater than or equal to 0, found -1",
            id="negative-settle",
        ),
        pytest.param(
            {"httpRoute": "a", "drift": "shout"}, f"{PATH}.drift: Input should be", id="drift"
        ),
        pytest.param(
            {"httpRoute": "a", "poolGroup": "example.com"},
            "poolGroup must be one of inference.networking.k8s.io",
            id="group",
        ),
        pytest.param(
            {"httpRoute": "a", "httpRoot": "b"}, f"{PATH}.httpRoot: unknown key", id="typing-error"
        ),
        pytest.param(
            {"httpRoute": "a", "static": {"stable": "x", "canary": "x"}},
            f"{PATH}.static: stable and canary must differ, both are 'x'",
            id="static-equal",
        ),
        pytest.param(["httpRoute"], f"{PATH}: Input should be", id="no-object"),
        pytest.param(
            {"httpRoutes": [{"name": "a", "rules": [{}]}]},
            f"{PATH}.httpRoutes[0].rules[0]: a rule is given by its name, or by at least one part",
            id="a-rule-that-says-nothing",
        ),
        pytest.param(
            {"httpRoutes": [{"name": "a", "rules": [{"path": "v1"}]}]},
            f"{PATH}.httpRoutes[0].rules[0].path: String should match pattern '^/', found 'v1'",
            id="a-path-without-its-slash",
        ),
        pytest.param(
            {"httpRoutes": [{"name": "a", "rules": [7]}]},
            f"{PATH}.httpRoutes[0].rules[0]: Input should be an object, found 7",
            id="a-rule-that-is-a-number",
        ),
    ],
)
def test_a_fault_is_told_with_its_path(config: Any, message: str) -> None:
    with pytest.raises(ConfigError) as found:
        parse(config)
    assert message in str(found.value)
    assert not found.value.retryable


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        pytest.param(b"", f"{PATH} is missing or empty", id="empty"),
        pytest.param(b"{", f"{PATH}: Invalid JSON", id="broken"),
    ],
)
def test_bytes_that_are_no_configuration_are_refused(raw: bytes, message: str) -> None:
    with pytest.raises(ConfigError) as found:
        parse_config(raw)
    assert message in str(found.value)
