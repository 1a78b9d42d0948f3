"""Resource types that only a Rollout's configuration names: found on the API server when asked."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from inference_common.errors import KubeError
from inference_plugin.errors import ConfigError
from inference_plugin.schemas import list_fault, schema_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference_common.kube import Kube, Resource
    from inference_plugin.config import ModelListConfig

Object = dict[str, Any]
_ASK_EVERY_S: Final = 3.0
_FORBIDDEN: Final = 403


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A resource type as it is served, and the schema of its objects ({} where there is none)."""

    resource: Resource
    schema: Object


class Kinds:
    """What was found of the kinds that configurations name.

    A kind whose schema holds the list is not asked for again; one that is missing, or whose
    schema lacks the list, at most every few seconds.
    """

    def __init__(self, kube: Kube, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is known at first."""
        self._kube = kube
        self._clock = clock
        self._known: dict[tuple[str, str], Kind] = {}
        self._asked: dict[tuple[str, str], float] = {}
        self._refused: dict[tuple[str, str], ConfigError] = {}

    def get(self, group: str, kind: str) -> Kind | None:
        """What is known of a kind."""
        return self._known.get((group, kind))

    def schema(self, resource: Resource) -> Object:
        """The schema of a known kind's objects."""
        known = self._known.get((resource.group, resource.kind))
        return known.schema if known else {}

    async def learn(self, listed: ModelListConfig) -> Resource | None:
        """The resource type, if it was looked up just now and its schema holds the list.

        Raises KubeError, and ConfigError where the server may not read such objects.
        """
        key = (listed.group, listed.kind)
        known = self._known.get(key)
        if known is not None and not list_fault(known.schema, listed):
            return None
        if self._clock() - self._asked.get(key, float("-inf")) < _ASK_EVERY_S:
            if key in self._refused:
                raise self._refused[key]
            return None
        self._refused.pop(key, None)
        found = await self._kube.find(listed.group, listed.kind)
        if found is None:
            self._known.pop(key, None)
            self._asked[key] = self._clock()
            return None
        path = f"/openapi/v3/apis/{quote(found.group)}/{quote(found.version)}"
        document = await self._kube.raw(path)
        schema = schema_of(document, found.group, found.version, found.kind)
        holds = not list_fault(schema, listed)
        try:
            if holds:
                await self._try_reading(found)
        except ConfigError as error:
            self._refused[key] = error
            self._asked[key] = self._clock()
            raise
        self._known[key] = Kind(resource=found, schema=schema)
        self._asked[key] = self._clock()
        return found if holds else None

    async def _try_reading(self, resource: Resource) -> None:
        try:
            await self._kube.list(resource, label_selector="inference-rollouts.io/none")
        except KubeError as error:
            if error.status != _FORBIDDEN:
                raise
            raise ConfigError(
                f"The plugin server may not read {resource.plural}.{resource.group}. Give its "
                "ServiceAccount a ClusterRole with the verbs get, list, watch and patch on them."
            ) from error
