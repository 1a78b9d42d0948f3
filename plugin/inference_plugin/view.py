"""What planning may ask of the cluster: reads without I/O, and times instead of clocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from inference_common.kube import Resource
    from inference_plugin.pool_shares import Acknowledgement

Object = dict[str, Any]


class View(Protocol):
    """The cluster as far as it is known now. Objects must not be changed."""

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """One object, or None."""

    def names(self, resource: Resource, namespace: str) -> list[str]:
        """Names of the objects of a namespace, for messages."""

    def serves(self, resource: Resource) -> bool:
        """Whether the API server has this resource type."""

    def kind(self, group: str, kind: str) -> Resource | None:
        """The served resource type of a kind that was asked for, None where there is none."""

    def schema(self, resource: Resource) -> Object:
        """The OpenAPI schema of such a kind; {} where it is not known."""

    def pods(self, namespace: str, selector: Mapping[str, str]) -> Iterable[Object]:
        """The pods with these labels."""

    def replica_sets(
        self, namespace: str, pod_template_hash: str | None = None
    ) -> Iterable[Object]:
        """The ReplicaSets of a namespace, all or those of one hash."""

    def available(self, namespace: str, rollout_uid: str, pod_template_hash: str) -> int:
        """Available pods of one revision of the Rollout with that uid."""

    def endpoints(self, namespace: str, service: str) -> int | None:
        """Ready endpoints of a Service without a selector; None while they are not known."""

    def accepted_for_s(self, route: Object) -> float | None:
        """Seconds since the route's gateway accepted this very generation; None if it has not."""

    def aimed_for_s(self, pool: Object) -> float:
        """Seconds since the pool's selector was changed by this plugin; infinite if never."""

    def acknowledged(
        self, pool: Object, pickers: Sequence[Object], port: int
    ) -> Mapping[str, Acknowledgement]:
        """What each picker pod says it enforces of the pool's shares, by its name."""
