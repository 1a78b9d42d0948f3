"""The templates of a running Experiment as destinations beside the two revisions.

A template names its destination by the annotation that revisions have too (under
``metadata.annotations`` of the template in the step), else it is the Service that Argo Rollouts
makes for each template with a weight. An Experiment that is over is named by no call any more,
so that what it had goes back to the stable revision, and references that were added for it leave
the rule: their Service is about to be deleted.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from inference_common.kube import SERVICE
from inference_common.names import DESTINATION_ANNOTATION
from inference_plugin.backends import Backend
from inference_plugin.destinations import UnknownRevisionError
from inference_plugin.errors import ConfigError
from inference_plugin.targets import Wait, WaitReason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inference_plugin.config import RouterConfig
    from inference_plugin.rollouts import Command
    from inference_plugin.shares import Extra
    from inference_plugin.targets import Target
    from inference_plugin.view import View

Object = dict[str, Any]
Item = TypeVar("Item")


def backends(
    target: Target[Backend], command: Command, config: RouterConfig, view: View
) -> tuple[Target[Backend], tuple[Wait, ...]]:
    """The target with the Experiment's backends; what a missing Service would get stays on stable.

    Raises ConfigError for a template without a destination, UnknownRevisionError for one whose
    ReplicaSet is not known yet.
    """
    namespace = command.spec.key.namespace
    shares: dict[Backend, int] = {}
    waits: tuple[Wait, ...] = ()
    for extra in command.weighting.additional:
        if not extra.weight:
            continue
        backend = _backend(extra, namespace, config, view)
        if view.get(backend.resource, namespace, backend.name) is None:
            message = f"{backend} of an Experiment's template does not exist; stable has its share."
            waits = (*waits, Wait(reason=WaitReason.DESTINATION, message=message))
            continue
        shares[backend] = shares.get(backend, 0) + extra.weight
    ports = {
        backend: tuple(
            int(port["port"])
            for port in (view.get(SERVICE, namespace, backend.name) or {})
            .get("spec", {})
            .get("ports", [])
        )
        for backend in shares
        if backend.resource == SERVICE
    }
    return replace(_beside(target, shares), ports=ports), waits


def adapters(target: Target[str], command: Command, view: View) -> Target[str]:
    """The target with the adapters that the Experiment's templates name. Raises as ``backends``."""
    namespace = command.spec.key.namespace
    shares: dict[str, int] = {}
    for extra in command.weighting.additional:
        if not extra.weight:
            continue
        name = _annotated(extra, namespace, view)
        if not name:
            raise ConfigError(
                f"A template of the Experiment has the weight {extra.weight}, but no annotation "
                f"{DESTINATION_ANNOTATION} that names its adapter. Add it under the template's "
                "metadata.annotations in the step, or leave the weight out."
            )
        shares[name] = shares.get(name, 0) + extra.weight
    return _beside(target, shares)


def versions(target: Target[str], command: Command) -> Target[str]:
    """The target with the versions of the Experiment's pods, which one pool holds as well."""
    shares: dict[str, int] = {}
    for extra in command.weighting.additional:
        shares[extra.pod_template_hash] = shares.get(extra.pod_template_hash, 0) + extra.weight
    return _beside(target, shares)


def _beside(target: Target[Item], extras: Mapping[Item, int]) -> Target[Item]:
    """Extras take from stable, which has what is left: the shares add up to the maximum."""
    shares = dict(target.shares)
    for item, share in extras.items():
        shares[item] = shares.get(item, 0) + share
    shares[target.stable] = target.maximum - sum(
        share for item, share in shares.items() if item != target.stable
    )
    return replace(target, shares=shares, extras=frozenset(extras) - target.homes)


def _backend(extra: Extra, namespace: str, config: RouterConfig, view: View) -> Backend:
    named = _annotated(extra, namespace, view)
    if named:
        kind = config.destinationKind or (config.static.kind if config.static else "InferencePool")
        own = config.static.group if config.static else None
        group = "" if kind == "Service" else own or config.poolGroup
        return Backend(group=group, kind=kind, namespace=namespace, name=named)
    if extra.service:
        return Backend(group="", kind="Service", namespace=namespace, name=extra.service)
    raise ConfigError(
        f"A template of the Experiment has the weight {extra.weight}, but no destination: no "
        f"annotation {DESTINATION_ANNOTATION}, and no Service, which Argo Rollouts makes only for "
        "containers that declare ports. Add one of them to the template, or leave the weight out."
    )


def _annotated(extra: Extra, namespace: str, view: View) -> str:
    """The destination that the template's annotation names, empty without one."""
    for replica_set in view.replica_sets(namespace, extra.pod_template_hash):
        metadata = replica_set["metadata"]
        owners = metadata.get("ownerReferences") or []
        if any(owner.get("kind") == "Experiment" for owner in owners):
            template = replica_set["spec"].get("template", {}).get("metadata", {})
            return str((template.get("annotations") or {}).get(DESTINATION_ANNOTATION) or "")
    raise UnknownRevisionError(namespace, extra.pod_template_hash)
