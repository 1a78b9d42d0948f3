"""The compact CRDs of manifests/crds say what the upstream ones say."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.repository import MANIFESTS

CRDS = MANIFESTS / "crds"

# SHA-256 of the upstream `spec` as sorted JSON, without descriptions: what the API server acts on.
UPSTREAM = {
    # gateway-api-inference-extension, config/crd/bases, bundle v1.5.0
    "inferencepools.inference.networking.k8s.io": (
        "97ddd60bfa941a2bb2a67cfb42011897528a6b2addcede442f9c294fddfdcb83"
    ),
    # the same folder of its last release with v1alpha2 InferencePool and InferenceModel
    "inferencepools.inference.networking.x-k8s.io": (
        "ef47a95b818f5e859a9a9d2e8b97993fa1e5dc5f534bd0908a475312562482ce"
    ),
    "inferencemodels.inference.networking.x-k8s.io": (
        "5150129198ee6b69a512aa79aeb53a473eaf3371829e76dc2e4b7a0b485e941f"
    ),
    # the same folder, bundle v1.5.0
    "inferencemodelrewrites.inference.networking.x-k8s.io": (
        "b698d4f5b7b4ede717b05a05d031450455f5d4ad5a3f04fe152436ef3e583132"
    ),
    "inferenceobjectives.inference.networking.x-k8s.io": (
        "6a57c6d1988047a7c547695959854b28e895504e0dac425421faef07157f3261"
    ),
    # llm-d-router, config/crd/bases, bundle main-dev
    "inferencemodelrewrites.llm-d.ai": (
        "1d38f8d8b7bb9e6cdac2d6e84f73254e64cfcab14c38b85ab096904023cc97be"
    ),
    "inferenceobjectives.llm-d.ai": (
        "35773d94916d3347542f1022f8f78cefc23a3ccfc22fbb287731b4d5e517401e"
    ),
}


def read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((CRDS / f"{name}.yaml").read_text())
    return document


@pytest.mark.parametrize("name", UPSTREAM)
def test_the_spec_is_the_upstream_one_but_for_descriptions(name: str) -> None:
    body = json.dumps(without_descriptions(read(name)["spec"]), sort_keys=True)
    assert hashlib.sha256(body.encode()).hexdigest() == UPSTREAM[name]


@pytest.mark.parametrize("name", UPSTREAM)
def test_a_file_is_named_after_its_crd(name: str) -> None:
    assert read(name)["metadata"]["name"] == name


@pytest.mark.parametrize("name", [name for name in UPSTREAM if name.endswith(".networking.k8s.io")])
def test_a_protected_group_carries_the_approval_the_api_server_asks_for(name: str) -> None:
    assert read(name)["metadata"]["annotations"]["api-approved.kubernetes.io"].startswith("https:")


def test_the_kustomization_lists_every_crd() -> None:
    listed = yaml.safe_load((CRDS / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(f"{name}.yaml" for name in UPSTREAM)
    assert sorted(Path(CRDS).glob("inference*.yaml")) == sorted(CRDS / item for item in listed)


def without_descriptions(value: Any) -> Any:
    match value:
        case dict():
            return {
                key: without_descriptions(item)
                for key, item in value.items()
                if not (key == "description" and isinstance(item, str))
            }
        case list():
            return [without_descriptions(item) for item in value]
        case _:
            return value
