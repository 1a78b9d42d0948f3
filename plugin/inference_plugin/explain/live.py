"""The cluster as the server would see it, read once and never written."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry

from inference_common.kube import Kube
from inference_plugin.cluster import Cluster
from inference_plugin.config import parse_config
from inference_plugin.errors import ConfigError, StaleError
from inference_plugin.rollouts import spec_of
from inference_plugin.telemetry import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from inference_common.kube import Resource
    from inference_plugin.config import RouterConfig

Object = dict[str, Any]
_LIMIT_S: Final = 20.0
_LONG_AGO_S: Final = 3600.0


class NarrowKube(Kube):
    """A connection that lists and watches one namespace where all were asked for."""

    only: str | None = None

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Object:
        """As Kube, in ``only`` where no namespace is given."""
        return await super().list(resource, namespace or self.only, label_selector, field_selector)

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> AsyncIterator[tuple[str, Object]]:
        """As Kube, in ``only`` where no namespace is given."""
        return super().watch(resource, namespace or self.only, *args, **kwargs)


class Unread(Exception):  # noqa: N818 - it says what happened
    """The cluster could not be read in time."""


@contextlib.asynccontextmanager
async def live_view(kube: NarrowKube) -> AsyncIterator[Cluster]:
    """The server's own view of the cluster, complete.

    What was accepted or aimed before now counts as settled long ago: a look that begins now can't
    tell for how long. Raises Unread when the lists do not come in time, most likely because they
    are forbidden.
    """
    offset_s = 0.0
    cluster = Cluster(kube, Metrics(CollectorRegistry()), lambda: time.monotonic() + offset_s)
    async with cluster:
        try:
            async with asyncio.timeout(_LIMIT_S):
                await cluster.synced()
        except TimeoutError as error:
            raise Unread(
                f"{kube.host} did not answer all lists within {_LIMIT_S:g} s; get, list and watch "
                "are needed on what the plugin server reads (manifests/base/rbac.yaml)"
            ) from error
        offset_s = _LONG_AGO_S
        for config in map(_config_of, cluster.rollouts()):
            if config is not None and config.modelList is not None:
                with contextlib.suppress(ConfigError, StaleError):
                    # What is wrong with it is told by planning.
                    await cluster.learn(config.modelList)
        yield cluster


@contextlib.asynccontextmanager
async def view_of(kube: NarrowKube, rollout: Object) -> AsyncIterator[Cluster]:
    """As ``live_view``, of the Rollout's namespace where all that it names is there."""
    config = _config_of(rollout)
    namespace = rollout["metadata"]["namespace"]
    kube.only = namespace if (config and config.namespace) in {None, namespace} else None
    async with live_view(kube) as cluster:
        yield cluster


def _config_of(rollout: Object) -> RouterConfig | None:
    """The configuration, None where it is not a valid one: planning tells why."""
    spec = spec_of(rollout)
    try:
        return parse_config(spec.config) if spec else None
    except ConfigError:
        return None
