"""Whether a weighted list at a configured path is one that the API server keeps.

A field that the schema of a CustomResourceDefinition lacks is dropped without a word
(kubernetes.io/docs, CustomResourceDefinitions, field pruning): the weights would be written and
be gone. So the schema is asked first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from inference_plugin.config import ModelListConfig

Object = dict[str, Any]
_KEEPS_ALL: Final = "x-kubernetes-preserve-unknown-fields"


def schema_of(document: Object, group: str, version: str, kind: str) -> Object:
    """The schema of a kind in an OpenAPI v3 document of its group; {} where it has none."""
    wanted = {"group": group, "version": version, "kind": kind}
    for schema in (document.get("components", {}).get("schemas") or {}).values():
        if wanted in (schema.get("x-kubernetes-group-version-kind") or []):
            found: Object = schema
            return found
    return {}


def list_fault(schema: Object, listed: ModelListConfig) -> str:
    """Why the schema can't hold the configured list, in words; empty where it can."""
    at = schema
    seen: list[str] = []
    for part in listed.listPath.split("."):
        if at.get(_KEEPS_ALL):
            return ""
        fields = at.get("properties") or {}
        if part not in fields:
            where = ".".join(seen) or "it"
            return f"no {listed.listPath} ({where} has {_listing(fields)})"
        at = fields[part]
        seen.append(part)
    if at.get(_KEEPS_ALL):
        return ""
    if at.get("type") != "array":
        return f"no list at {listed.listPath} (it is of type {at.get('type', 'unknown')})"
    return _entry_fault(at.get("items") or {}, listed)


def _entry_fault(items: Object, listed: ModelListConfig) -> str:
    if items.get(_KEEPS_ALL):
        return ""
    fields = items.get("properties") or {}
    missing = [key for key in (listed.nameKey, listed.weightKey) if key not in fields]
    if missing:
        return (
            f"no {' and no '.join(missing)} in the entries of {listed.listPath} (they have "
            f"{_listing(fields)})"
        )
    weight = fields[listed.weightKey]
    if weight.get("type") == "integer" or weight.get("x-kubernetes-int-or-string"):
        return ""
    found = weight.get("type", "unknown")
    return f"no integer at {listed.listPath}[].{listed.weightKey} (it is of type {found})"


def _listing(fields: Object) -> str:
    return ", ".join(sorted(fields)) or "no fields"
