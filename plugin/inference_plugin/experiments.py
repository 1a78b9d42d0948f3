"""The templates of a running Experiment as destinations beside the two revisions.

A template names its destination by the annotation that revisions have too (under
``metadata.annotations`` of the template in the step), else it is the Service that Argo Rollouts
makes for each template with a weight. An Experiment that is over is named by no call any more,
so that what it had goes back to the stable revision, and references that were added for it leave
the rule: their Service is about to be deleted.

Argo Rollouts names a template's ReplicaSet and Service when it makes the Service, once: a status
that it computed meanwhile from an older read takes both names away for good, and for containers
without ports it never names them (argo-rollouts v1.10.2, experiments/experiment.go
createTemplateService). Such templates are found by the Rollout's step.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from inference_common.kube import ROLLOUT, SERVICE
from inference_common.names import (
    DESTINATION_ANNOTATION,
    EXPERIMENT_ANNOTATION,
    HASH_LABEL,
    TEMPLATE_ANNOTATION,
)
from inference_plugin.backends import Backend
from inference_plugin.destinations import UnknownRevisionError
from inference_plugin.errors import ConfigError, StaleError
from inference_plugin.rollouts import weighted_templates
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


def identified(command: Command, view: View) -> Command:
    """The command with the ReplicaSet and the Service of each template that came without them.

    Raises StaleError where the Rollout's step and the ReplicaSets do not tell (yet) which they are.
    """
    extras = command.weighting.additional
    if all(extra.pod_template_hash for extra in extras):
        return command
    key = command.spec.key
    rollout = view.get(ROLLOUT, key.namespace, key.name) or {}
    templates = weighted_templates(rollout)
    if [weight for _, weight in templates] != [extra.weight for extra in extras]:
        raise StaleError(
            f"Argo Rollouts names no ReplicaSet for a template of the Experiment of {key}, and the "
            f"Rollout's current step has the weights {templates}, not "
            f"{[extra.weight for extra in extras]}. It is read again with the next call."
        )
    status = (rollout.get("status") or {}).get("canary") or {}
    experiment = str(status.get("currentExperiment") or "")
    found = tuple(
        extra if extra.pod_template_hash else _found(extra, name, experiment, key.namespace, view)
        for extra, (name, _) in zip(extras, templates, strict=True)
    )
    return replace(command, weighting=replace(command.weighting, additional=found))


def _found(extra: Extra, template: str, experiment: str, namespace: str, view: View) -> Extra:
    """The template's ReplicaSet, and its Service, which has the same name."""
    for replica_set in view.replica_sets(namespace):
        metadata = replica_set["metadata"]
        annotations = metadata.get("annotations") or {}
        whose = annotations.get(EXPERIMENT_ANNOTATION), annotations.get(TEMPLATE_ANNOTATION)
        if whose == (experiment, template):
            pod_template_hash = metadata["labels"][HASH_LABEL]
            return replace(extra, service=metadata["name"], pod_template_hash=pod_template_hash)
    raise StaleError(
        f"Argo Rollouts names no ReplicaSet for the template {template!r} of the Experiment "
        f"{experiment!r} in {namespace}, and no ReplicaSet there is annotated with their names "
        f"({EXPERIMENT_ANNOTATION}, {TEMPLATE_ANNOTATION}). It is read again with the next call."
    )


def backends(
    target: Target[Backend], command: Command, config: RouterConfig, view: View
) -> tuple[Target[Backend], tuple[Wait, ...]]:
    """The target with the Experiment's backends; what a missing Service would get stays on stable.

    Raises UnknownRevisionError for a template whose ReplicaSet is not known yet.
    """
    namespace = command.spec.key.namespace
    shares: dict[Backend, int] = {}
    waits: tuple[Wait, ...] = ()
    for extra in command.weighting.additional:
        if not extra.weight:
            continue
        backend = _backend(extra, namespace, config, view)
        if view.get(backend.resource, namespace, backend.name) is None:
            message = (
                f"{backend} of an Experiment's template does not exist; stable has its share. "
                "Argo Rollouts makes a template's Service only where its containers declare ports, "
                f"and deletes it with the Experiment; the annotation {DESTINATION_ANNOTATION} "
                "names another destination."
            )
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
    """The target with the adapters that the Experiment's templates name.

    Raises as ``backends``, and ConfigError for a template that names none.
    """
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
    return Backend(group="", kind="Service", namespace=namespace, name=extra.service)


def _annotated(extra: Extra, namespace: str, view: View) -> str:
    """The destination that the template's annotation names, empty without one."""
    for replica_set in view.replica_sets(namespace, extra.pod_template_hash):
        metadata = replica_set["metadata"]
        owners = metadata.get("ownerReferences") or []
        if any(owner.get("kind") == "Experiment" for owner in owners):
            template = replica_set["spec"].get("template", {}).get("metadata", {})
            return str((template.get("annotations") or {}).get(DESTINATION_ANNOTATION) or "")
    raise UnknownRevisionError(namespace, extra.pod_template_hash)
