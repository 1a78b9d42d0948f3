"""The objects that carry a Rollout's weights: which they are, and reading them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inference_common.kube import (
    INFERENCEMODEL,
    INFERENCEMODELREWRITE,
    INFERENCEMODELREWRITE_X,
    INFERENCEPOOL,
    INFERENCEPOOL_X,
    Resource,
)
from inference_plugin.errors import ConfigError
from inference_plugin.routes import ROUTES
from inference_plugin.schemas import list_fault

if TYPE_CHECKING:
    from inference_plugin.config import ModelListConfig, RouterConfig
    from inference_plugin.rollouts import RolloutSpec
    from inference_plugin.view import View

Object = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """Namespaces, besides a Rollout's own, whose routes and models may be named in its config."""

    namespaces: frozenset[str] = frozenset()


def managed_objects(
    spec: RolloutSpec, config: RouterConfig, permissions: Permissions, view: View
) -> list[tuple[Resource, str, str]]:
    """The objects that carry the weights: resource, namespace, name.

    Raises ConfigError for a namespace that is not permitted, and for a configured list that the
    API server does not keep.
    """
    own = spec.key.namespace
    namespace = config.namespace or own
    if namespace != own and not {namespace, "*"} & permissions.namespaces:
        raise ConfigError(
            f"namespace {namespace!r} is not the Rollout's own ({own}), and the plugin server "
            f"does not allow it. Start it with --allow-namespace {namespace}, or leave namespace "
            "out."
        )
    if config.inferenceModel:
        return [(INFERENCEMODEL, namespace, config.inferenceModel)]
    if config.inferenceModelRewrite:
        resource = _rewrite_resource(config.inferenceModelRewrite.group, view)
        return [(resource, namespace, config.inferenceModelRewrite.name)]
    if config.modelList:
        return [(_list_resource(config.modelList, view), namespace, config.modelList.name)]
    if config.sharedPool:
        resource = INFERENCEPOOL if config.poolGroup == INFERENCEPOOL.group else INFERENCEPOOL_X
        return [(resource, namespace, config.sharedPool)]
    return [(ROUTES[kind], namespace, route.name) for kind, route in config.routes]


def read_object(view: View, resource: Resource, namespace: str, name: str) -> Object:
    """The object; raises ConfigError that says what was found where it does not exist."""
    if not view.serves(resource):
        raise ConfigError(
            f"This cluster does not serve {resource.plural}.{resource.group}/{resource.version}, "
            f"which {resource.kind} {namespace}/{name} needs. Install its CustomResourceDefinition."
        )
    found = view.get(resource, namespace, name)
    if found is None:
        names = ", ".join(sorted(view.names(resource, namespace))) or "none"
        raise ConfigError(
            f"{resource.kind} {namespace}/{name} ({resource.api_version}) does not exist (found in "
            f"{namespace}: {names}). Create it, or correct the name in the Rollout."
        )
    return found


def _rewrite_resource(group: str | None, view: View) -> Resource:
    """The resource type of InferenceModelRewrites.

    Upstream's picker ignores the older group where both are installed (llm-d-router
    pkg/epp/server/controller_config.go).
    """
    legacy = group == INFERENCEMODELREWRITE_X.group
    if legacy or (group is None and not view.serves(INFERENCEMODELREWRITE)):
        return INFERENCEMODELREWRITE_X
    return INFERENCEMODELREWRITE


def _list_resource(listed: ModelListConfig, view: View) -> Resource:
    resource = view.kind(listed.group, listed.kind)
    if resource is None:
        raise ConfigError(
            f"This cluster serves no kind {listed.kind} in the group {listed.group}. Install its "
            "CustomResourceDefinition, or correct modelList.kind and modelList.group."
        )
    fault = list_fault(view.schema(resource), listed)
    if fault:
        raise ConfigError(
            f"{resource.kind} ({resource.api_version}) of this cluster has {fault}, so that the "
            "API server would drop what is written there. Correct modelList, or install the "
            "version of its CustomResourceDefinition that has it."
        )
    return resource
