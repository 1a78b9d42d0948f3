"""Values that a pod may read of itself: fieldRef and resourceFieldRef."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class FieldError(Exception):
    """A fieldRef or resourceFieldRef that this node cannot answer."""


_SUBSCRIPT: Final = re.compile(r"^metadata\.(labels|annotations)\['([^']+)'\]$")
_SUFFIXES: Final[dict[str, Decimal]] = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}
_QUANTITY: Final = re.compile(r"^([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([numkMGTPE]?i?)$")


def field(pod: Mapping[str, Any], path: str) -> str:
    """The value of a fieldRef as text; labels and annotations that are absent are empty.

    ``metadata.labels`` and ``metadata.annotations`` as a whole (for downwardAPI volumes) give one
    ``key="value"`` a line, sorted. Raises FieldError for paths that the API server would refuse.
    """
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status", {})
    if match := _SUBSCRIPT.match(path):
        kind, key = match.groups()
        return str((metadata.get(kind) or {}).get(key, ""))
    simple: dict[str, Any] = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata.get("uid"),
        "spec.nodeName": spec.get("nodeName"),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": status.get("podIP"),
        "status.podIPs": ",".join(entry["ip"] for entry in status.get("podIPs") or []),
        "status.hostIP": status.get("hostIP"),
        "status.hostIPs": ",".join(entry["ip"] for entry in status.get("hostIPs") or []),
    }
    if path in simple:
        return str(simple[path] or "")
    if path in {"metadata.labels", "metadata.annotations"}:
        pairs = metadata.get(path.removeprefix("metadata.")) or {}
        return "\n".join(f"{key}={json.dumps(pairs[key])}" for key in sorted(pairs))
    raise FieldError(f'fieldRef "{path}" is not one that a pod can read')


def quantity(text: str) -> Decimal:
    """The number that a resource quantity such as ``500m`` or ``2Gi`` stands for."""
    match = _QUANTITY.match(str(text))
    suffix = match.group(2) if match else "?"
    if match is None or suffix not in _SUFFIXES:
        raise FieldError(f'"{text}" is not a resource quantity')
    try:
        return Decimal(match.group(1)) * _SUFFIXES[suffix]
    except InvalidOperation as error:
        raise FieldError(f'"{text}" is not a resource quantity') from error


def resource_field(
    pod: Mapping[str, Any],
    container: Mapping[str, Any],
    reference: Mapping[str, Any],
    allocatable: Mapping[str, str],
) -> str:
    """The value of a resourceFieldRef: amount over divisor, rounded up.

    A limit that the container does not set is the node's allocatable amount, a request that it
    does not set is its limit or zero (k8s.io/kubernetes/pkg/api/v1/resource).
    """
    if name := reference.get("containerName"):
        containers = [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]
        found = [one for one in containers if one["name"] == name]
        if not found:
            raise FieldError(f'resourceFieldRef names container "{name}", which the pod lacks')
        container = found[0]
    side, _, resource = str(reference["resource"]).partition(".")
    amounts = container.get("resources") or {}
    limit = (amounts.get("limits") or {}).get(resource)
    if side == "limits":
        amount = limit or allocatable.get(resource, "0")
    elif side == "requests":
        amount = (amounts.get("requests") or {}).get(resource) or limit or "0"
    else:
        raise FieldError(f'resourceFieldRef "{reference["resource"]}" is neither limit nor request')
    divisor = quantity(reference.get("divisor") or "1") or Decimal(1)
    return str(math.ceil(quantity(amount) / divisor))
