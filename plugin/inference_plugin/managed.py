"""What was commanded on a managed object against what stands there, whatever its kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inference_plugin import models, pool_shares, route_drift
from inference_plugin.splits import split_of

if TYPE_CHECKING:
    from inference_common.kube import Resource
    from inference_plugin.commanded import Commanded
    from inference_plugin.config import RouterConfig
    from inference_plugin.patches import ObjectPatch

Object = dict[str, Any]


def drift_of(resource: Resource, obj: Object, entry: Commanded, config: RouterConfig) -> str:
    """What differs from the commanded state, in words; empty when nothing does.

    Raises ConfigError where the object has no longer the list that the configuration means.
    """
    if config.model_key:
        return models.drift_of(split_of(obj, resource, config), entry)
    if config.sharedPool:
        return pool_shares.drift_of(obj, entry)
    return route_drift.drift_of(obj, entry)


def restore(
    resource: Resource, obj: Object, entry: Commanded, config: RouterConfig
) -> ObjectPatch | None:
    """The patch that brings the commanded state back; None where there is none.

    Raises ConfigError as ``drift_of`` does.
    """
    if config.model_key:
        return models.restore(split_of(obj, resource, config), entry)
    if config.sharedPool:
        return pool_shares.restore(resource, obj, entry)
    return route_drift.restore(obj, entry)


def adopt(
    resource: Resource, obj: Object, entry: Commanded, config: RouterConfig
) -> ObjectPatch | None:
    """The patch that makes what stands there the commanded state; None where it can't be.

    Raises ConfigError as ``drift_of`` does.
    """
    if config.model_key:
        return models.adopt(split_of(obj, resource, config), entry)
    if config.sharedPool:
        return pool_shares.adopt(resource, obj, entry)
    return route_drift.adopt(obj, entry)
