"""A Rollout under lint: its manifest, its configuration, and the objects given beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from inference_common.kube import (
    INFERENCEMODEL,
    INFERENCEMODELREWRITE,
    INFERENCEMODELREWRITE_X,
    INFERENCEPOOL,
    ROLLOUT,
    SERVICE,
)
from inference_common.names import DESTINATION_ANNOTATION, PLUGIN_NAME
from inference_common.pools import POOLS
from inference_plugin.backends import Backend
from inference_plugin.config import DestinationMode, RouterConfig, parse_config
from inference_plugin.routes import ROUTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from inference_common.kube import Resource
    from inference_plugin.lint.documents import Document

Object = dict[str, Any]
ROUTING: Final = ("spec", "strategy", "canary", "trafficRouting")
CONFIG: Final = (*ROUTING, "plugins", PLUGIN_NAME)


class Inventory:
    """All objects given, by what identifies them."""

    def __init__(self, documents: Sequence[Document]) -> None:
        """Sort them; of two with one name the later counts, as with kubectl apply."""
        self._documents = {
            (each.group, each.kind, each.namespace, each.name): each for each in documents
        }

    def __iter__(self) -> Iterator[Document]:
        return iter(self._documents.values())

    def get(self, group: str, kind: str, namespace: str, name: str) -> Document | None:
        """One object, or None."""
        return self._documents.get((group, kind, namespace, name))

    def of(self, resource: Resource, namespace: str, name: str) -> Document | None:
        """One object of a resource type, in whatever version, or None."""
        return self.get(resource.group, resource.kind, namespace, name)

    def names(self, group: str, kind: str, namespace: str) -> list[str]:
        """Names of the objects of a kind in a namespace."""
        return sorted(
            name
            for g, k, space, name in self._documents
            if (g, k, space) == (group, kind, namespace)
        )

    def rollouts(self) -> Iterator[Document]:
        """Every Rollout."""
        return (each for each in self if (each.group, each.kind) == (ROLLOUT.group, ROLLOUT.kind))


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A Rollout whose configuration is a valid one."""

    document: Document
    config: RouterConfig
    inventory: Inventory

    @property
    def namespace(self) -> str:
        """Where the Rollout is."""
        return self.document.namespace

    @property
    def object_namespace(self) -> str:
        """Where the objects are that carry the weights."""
        return self.config.namespace or self.namespace

    @property
    def canary(self) -> Object:
        """``spec.strategy.canary``."""
        found: Object = self.document.obj["spec"]["strategy"]["canary"]
        return found

    @property
    def replicas(self) -> int:
        """``spec.replicas``, 1 where it is absent."""
        return int((self.document.obj.get("spec") or {}).get("replicas", 1))

    @property
    def template(self) -> tuple[Document, tuple[str, ...], Object] | None:
        """The pod template, and where it stands; None where a workloadRef leads out of the files.

        For an own template that is the Rollout and ``spec.template``.
        """
        spec = self.document.obj["spec"]
        if spec.get("template"):
            return self.document, ("spec", "template"), spec["template"]
        ref = spec.get("workloadRef") or {}
        group, slash, _ = str(ref.get("apiVersion", "")).partition("/")
        found = self.inventory.get(
            group if slash else "", str(ref.get("kind")), self.namespace, str(ref.get("name"))
        )
        if found is None:
            return None
        place = ("template",) if found.kind == "PodTemplate" else ("spec", "template")
        template = found.obj
        for part in place:
            template = template.get(part) or {}
        return found, place, template

    @property
    def serves(self) -> bool:
        """Whether the Rollout's own pods answer the requests."""
        return self.config.mode not in {DestinationMode.NAMED, DestinationMode.MODEL}

    @property
    def destination(self) -> str | None:
        """What the pod template says that the revision stands for; None where it says nothing."""
        if self.template is None:
            return None
        annotations = (self.template[2].get("metadata") or {}).get("annotations") or {}
        found = annotations.get(DESTINATION_ANNOTATION)
        return None if found is None else str(found)

    def backends(self) -> list[tuple[Backend, tuple[str | int, ...]]]:
        """The backends that the configuration names, and where it does."""
        config, canary = self.config, ("spec", "strategy", "canary")
        if config.inferencePools:
            return [
                (self._backend(config.poolGroup, name), (*CONFIG, "inferencePools", index))
                for index, name in enumerate(config.inferencePools)
            ]
        if config.static:
            group = "" if config.static.kind == "Service" else config.static.group
            group = config.poolGroup if group is None else group
            kind = config.static.kind
            return [
                (
                    self._backend(group, getattr(config.static, role), kind),
                    (*CONFIG, "static", role),
                )
                for role in ("stable", "canary")
            ]
        if config.mode is DestinationMode.NAMED:
            if not self.destination or self.template is None:
                return []
            group = "" if config.destinationKind == "Service" else config.poolGroup
            where = (*self.template[1], "metadata", "annotations", DESTINATION_ANNOTATION)
            backend = self._backend(group, self.destination, config.destinationKind or "")
            return [(backend, where)]
        if config.mode is DestinationMode.STATIC:
            return [
                (self._backend("", str(self.canary[key]), SERVICE.kind), (*canary, key))
                for key in ("stableService", "canaryService")
                if self.canary.get(key)
            ]
        return []

    def carriers(self) -> list[tuple[Resource, str, tuple[str | int, ...]]]:
        """The objects that carry the weights: resource, name, and where the configuration says it.

        A list of any kind (``modelList``) is not among them: its schema is the cluster's.
        """
        config = self.config
        if config.inferenceModel:
            return [(INFERENCEMODEL, config.inferenceModel, (*CONFIG, "inferenceModel"))]
        if config.inferenceModelRewrite:
            rewrite = config.inferenceModelRewrite
            groups = {each.group: each for each in (INFERENCEMODELREWRITE, INFERENCEMODELREWRITE_X)}
            resource = groups.get(rewrite.group or "", INFERENCEMODELREWRITE)
            where = self.object_namespace
            if rewrite.group is None and not self.inventory.of(resource, where, rewrite.name):
                resource = INFERENCEMODELREWRITE_X
            return [(resource, rewrite.name, (*CONFIG, "inferenceModelRewrite"))]
        if config.sharedPool:
            resource = POOLS[config.poolGroup]
            return [(resource, config.sharedPool, (*CONFIG, "sharedPool"))]
        return [(ROUTES[kind], route.name, CONFIG) for kind, route in config.routes]

    def _backend(self, group: str, name: str, kind: str = INFERENCEPOOL.kind) -> Backend:
        return Backend(group=group, kind=kind, namespace=self.namespace, name=name)


def subject_of(document: Document, inventory: Inventory) -> Subject | None:
    """The Rollout, if this plugin routes it. Raises ConfigError for a bad configuration."""
    found: Any = document.obj
    for part in CONFIG[:-1]:
        found = (found.get(part) if isinstance(found, dict) else None) or {}
    if not isinstance(found, dict) or PLUGIN_NAME not in found:
        return None
    raw = json.dumps(found[PLUGIN_NAME], sort_keys=True).encode()
    return Subject(document=document, config=parse_config(raw), inventory=inventory)
