"""Environment variables of a container."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from support.nodeagent.expansion import expand
from support.nodeagent.fields import field, resource_field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


class ConfigError(Exception):
    """A container that cannot start because of what it refers to; trying again may help."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A ConfigMap or Secret that a pod reads; ``kind`` is the API's name of the type."""

    kind: str
    name: str


Contents = dict[Reference, dict[str, bytes] | None]
"""What each reference holds; None where the object does not exist."""


def container_references(container: Mapping[str, Any]) -> set[Reference]:
    """The ConfigMaps and Secrets that the container's env and envFrom name."""
    found = set()
    for entry in container.get("env") or []:
        source = entry.get("valueFrom") or {}
        if reference := source.get("configMapKeyRef"):
            found.add(Reference("ConfigMap", reference["name"]))
        if reference := source.get("secretKeyRef"):
            found.add(Reference("Secret", reference["name"]))
    for entry in container.get("envFrom") or []:
        if reference := entry.get("configMapRef"):
            found.add(Reference("ConfigMap", reference["name"]))
        if reference := entry.get("secretRef"):
            found.add(Reference("Secret", reference["name"]))
    return found


def service_variables(host: str, port: int) -> dict[str, str]:
    """The variables by which in-cluster clients find the API server."""
    return {
        "KUBERNETES_SERVICE_HOST": host,
        "KUBERNETES_SERVICE_PORT": str(port),
        "KUBERNETES_SERVICE_PORT_HTTPS": str(port),
    }


def environment(
    pod: Mapping[str, Any],
    container: Mapping[str, Any],
    contents: Contents,
    given: Mapping[str, str],
    allocatable: Mapping[str, str],
    localise: Callable[[str], str] = str,
) -> dict[str, str]:
    """``given`` variables, then envFrom, then env; later ones win and see the earlier ones.

    ``localise`` replaces mount paths in what the pod says (not in the given variables, nor in
    what they expand to: those are real paths already).

    Raises ConfigError for an object or key that is missing and not optional, FieldError for a
    field that cannot be read.
    """
    variables = dict(given)
    for entry in container.get("envFrom") or []:
        found = _all_keys(entry, contents)
        variables |= {name: localise(value) for name, value in found.items()}
    for entry in container.get("env") or []:
        name = entry["name"]
        source = entry.get("valueFrom")
        if source is None:
            variables[name] = expand(localise(entry.get("value") or ""), variables)
        elif (value := _value(pod, container, source, contents, allocatable)) is not None:
            variables[name] = localise(value)
    return variables


def key_of(reference: Reference, key: str, contents: Contents, *, optional: bool) -> bytes | None:
    """One key of a ConfigMap or Secret; None where it is missing and optional."""
    held = contents.get(reference)
    if held is not None and key in held:
        return held[key]
    if optional:
        return None
    missing = f'{reference.kind} "{reference.name}"'
    if held is None:
        raise ConfigError(f"{missing} not found in the pod's namespace")
    raise ConfigError(f'{missing} has no key "{key}"; it has {_listed(held)}')


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _all_keys(entry: Mapping[str, Any], contents: Contents) -> dict[str, str]:
    kind, found = next(
        (kind, entry[field_name])
        for field_name, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret"))
        if entry.get(field_name)
    )
    held = contents.get(Reference(kind, found["name"]))
    if held is None:
        if found.get("optional"):
            return {}
        raise ConfigError(f'{kind} "{found["name"]}" not found in the pod\'s namespace')
    prefix = entry.get("prefix") or ""
    return {prefix + key: held[key].decode(errors="replace") for key in held}


def _value(
    pod: Mapping[str, Any],
    container: Mapping[str, Any],
    source: Mapping[str, Any],
    contents: Contents,
    allocatable: Mapping[str, str],
) -> str | None:
    if (reference := source.get("fieldRef")) is not None:
        return field(pod, reference["fieldPath"])
    if (reference := source.get("resourceFieldRef")) is not None:
        return resource_field(pod, container, reference, allocatable)
    for field_name, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
        if (reference := source.get(field_name)) is not None:
            value = key_of(
                Reference(kind, reference["name"]),
                reference["key"],
                contents,
                optional=bool(reference.get("optional")),
            )
            return None if value is None else value.decode(errors="replace")
    raise ConfigError(f"env source {sorted(source)} is not supported by this node")
