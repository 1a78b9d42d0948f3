"""What a destination must contain, and whether a pod of it does.

The text is the value of the annotation ``inference-rollouts.io/identity``: conditions separated
by commas, all of which must hold.

==========================  ====================================================================
condition                   holds when
==========================  ====================================================================
``root=MODEL`` or ``MODEL``  /v1/models gives the name this root, or a path that ends in it
``image=REFERENCE``          a container of the pod runs this image
``label:KEY=VALUE``          the pod carries the label
``annotation:KEY=VALUE``     the pod carries the annotation
==========================  ====================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_Kind = Literal["root", "image", "label", "annotation"]


class IdentityError(ValueError):
    """An identity that can't be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One condition; ``key`` is empty for root and image."""

    kind: _Kind
    key: str
    value: str


def parse_identity(text: str) -> tuple[Condition, ...]:
    """Conditions of an identity; none for an empty text. Raises IdentityError."""
    return tuple(_condition(part) for part in map(str.strip, text.split(",")) if part)


def mismatch(
    conditions: tuple[Condition, ...], *, pod: Mapping[str, Any], root: str | None
) -> str | None:
    """The first condition that does not hold, in words, or None.

    ``root`` is the root of the name's entry in the pod's /v1/models.
    """
    for condition in conditions:
        found = list(_found(condition, pod, root))
        if not any(_same(condition, value) for value in found):
            what = f"{condition.kind} {condition.key}".strip()
            return f"{what} is {', '.join(found) or 'absent'}, expected {condition.value}"
    return None


def _condition(part: str) -> Condition:
    left, equals, value = part.partition("=")
    if not equals:
        return Condition(kind="root", key="", value=part)
    kind, _, key = left.partition(":")
    if value:
        match kind:
            case "root" | "image" if not key:
                return Condition(kind=kind, key="", value=value)
            case "label" | "annotation" if key:
                return Condition(kind=kind, key=key, value=value)
            case _:
                pass
    raise IdentityError(
        f"identity: found {part!r}; write root=MODEL, image=REFERENCE, label:KEY=VALUE or "
        f"annotation:KEY=VALUE"
    )


def _found(condition: Condition, pod: Mapping[str, Any], root: str | None) -> Iterator[str]:
    metadata = pod.get("metadata", {})
    match condition.kind:
        case "root":
            values = [root]
        case "image":
            containers = pod.get("spec", {}).get("containers", [])
            values = [container.get("image") for container in containers]
        case "label":
            values = [(metadata.get("labels") or {}).get(condition.key)]
        case "annotation":
            values = [(metadata.get("annotations") or {}).get(condition.key)]
    yield from (value for value in values if value)


def _same(condition: Condition, value: str) -> bool:
    if value == condition.value:
        return True
    # vLLM's root is the path that it was started with: the last component names the model.
    return condition.kind == "root" and value.rstrip("/").rsplit("/", 1)[-1] == condition.value
