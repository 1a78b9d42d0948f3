"""What a CRD's OpenAPI schema says about a weighted list at a configured path."""

from __future__ import annotations

from typing import Any

import pytest

from inference_plugin.config import ModelListConfig
from inference_plugin.schemas import list_fault, schema_of

LISTED = ModelListConfig(
    kind="InferenceModel",
    group="inference.networking.x-k8s.io",
    name="travel",
    listPath="spec.versions",
)
ENTRY = {"properties": {"name": {"type": "string"}, "weight": {"type": "integer"}}}
# InferenceModel's spec in gateway-api-inference-extension v0.5.1.
UPSTREAM: dict[str, Any] = {"criticality": {}, "modelName": {}, "poolRef": {}, "targetModels": {}}


def make_schema(versions: Any, **others: Any) -> dict[str, Any]:
    return {"properties": {"spec": {"properties": {"versions": versions, **others}}}}


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param(make_schema({"type": "array", "items": ENTRY}), id="it-is-there"),
        pytest.param(
            {"properties": {"spec": {"x-kubernetes-preserve-unknown-fields": True}}},
            id="the-spec-keeps-everything",
        ),
        pytest.param(
            make_schema({"x-kubernetes-preserve-unknown-fields": True}), id="so-does-the-list"
        ),
        pytest.param(
            make_schema({"type": "array", "items": {"x-kubernetes-preserve-unknown-fields": True}}),
            id="so-do-its-entries",
        ),
        pytest.param(
            make_schema(
                {
                    "type": "array",
                    "items": {
                        "properties": {"name": {}, "weight": {"x-kubernetes-int-or-string": 1}}
                    },
                }
            ),
            id="the-weight-may-be-a-number",
        ),
    ],
)
def test_a_list_that_the_api_server_keeps_is_accepted(schema: dict[str, Any]) -> None:
    assert list_fault(schema, LISTED) == ""


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        pytest.param(
            {"properties": {"spec": {"properties": UPSTREAM}}},
            "no spec.versions (spec has criticality, modelName, poolRef, targetModels)",
            id="upstream",
        ),
        pytest.param({}, "no spec.versions (it has no fields)", id="no-schema"),
        pytest.param(
            make_schema({"type": "object"}),
            "no list at spec.versions (it is of type object)",
            id="no-list",
        ),
        pytest.param(
            make_schema({"type": "array", "items": {"properties": {"name": {}}}}),
            "no weight in the entries of spec.versions (they have name)",
            id="no-weight",
        ),
        pytest.param(
            make_schema({"type": "array", "items": {"type": "string"}}),
            "no name and no weight in the entries of spec.versions (they have no fields)",
            id="a-list-of-words",
        ),
        pytest.param(
            make_schema(
                {
                    "type": "array",
                    "items": {"properties": {"name": {}, "weight": {"type": "string"}}},
                }
            ),
            "no integer at spec.versions[].weight (it is of type string)",
            id="weights-as-text",
        ),
    ],
)
def test_a_list_that_would_be_dropped_is_told(schema: dict[str, Any], fault: str) -> None:
    assert list_fault(schema, LISTED) == fault


def test_the_schema_of_a_kind_is_found_by_group_version_and_kind() -> None:
    def entry(group: str, version: str, kind: str) -> dict[str, Any]:
        about = [{"group": group, "version": version, "kind": kind}]
        return {"x-kubernetes-group-version-kind": about, "title": f"{group} {version} {kind}"}

    schemas = {
        "a": entry("g", "v1", "Model"),
        "b": entry("g", "v2", "Model"),
        "c": entry("g", "v2", "ModelList"),
        "d": {},
    }
    document = {"components": {"schemas": schemas}}
    assert schema_of(document, "g", "v2", "Model") == schemas["b"]
    assert schema_of(document, "g", "v3", "Model") == {}
    assert schema_of({}, "g", "v3", "Model") == {}
