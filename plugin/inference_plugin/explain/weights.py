"""The weights that stand on an object, whatever its kind, and what a patch would make of it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from inference_common.names import SHARES_ANNOTATION
from inference_common.shares import SharesError, decode
from inference_plugin.routes import ROUTES, item_of_ref, namespace_of, place_of, refs_of, rules_of
from inference_plugin.splits import split_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference_common.kube import Resource
    from inference_plugin.config import RouterConfig
    from inference_plugin.patches import Operation

Object = dict[str, Any]
Weights = dict[tuple[str, str], int | None]


def weights_on(resource: Resource, obj: Object, config: RouterConfig) -> Weights:
    """Weight by (place, item) as the commanded annotation names them; None for an absent weight.

    Empty for an object that has no weighted list of its own. Raises ConfigError where it has not
    the list that the configuration means.
    """
    if resource.kind in ROUTES:
        return {
            (place_of(obj, index), item_of_ref(ref, namespace_of(obj))): ref.get("weight")
            for index in range(len(rules_of(obj)))
            for ref in refs_of(obj, index)
        }
    if config.sharedPool:
        text = (obj["metadata"].get("annotations") or {}).get(SHARES_ANNOTATION)
        try:
            shares = decode(text).weights if text else {}
        except SharesError:
            return {}
        return {("", version): weight for version, weight in shares.items()}
    split = split_of(obj, resource, config)
    return {
        (split.place, str(entry.get(split.name_key))): entry.get(split.weight_key)
        for entry in split.entries
    }


def patched(obj: Object, operations: Sequence[Operation]) -> Object:
    """The object after a JSON Patch of ``add``, ``replace`` and ``remove`` (RFC 6902)."""
    found = copy.deepcopy(obj)
    for operation in operations:
        if operation["op"] == "test":
            continue
        *parents, last = [
            part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]
        ]
        target: Any = found
        for part in parents:
            target = target[int(part)] if isinstance(target, list) else target[part]
        if isinstance(target, list):
            _patch_list(target, last, operation)
        elif operation["op"] == "remove":
            del target[last]
        else:
            target[last] = copy.deepcopy(operation["value"])
    return found


def _patch_list(target: list[Any], last: str, operation: Operation) -> None:
    if operation["op"] == "remove":
        del target[int(last)]
    elif operation["op"] == "replace":
        target[int(last)] = copy.deepcopy(operation["value"])
    else:
        target.insert(len(target) if last == "-" else int(last), copy.deepcopy(operation["value"]))
