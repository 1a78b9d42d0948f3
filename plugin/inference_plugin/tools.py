"""What every keeper shares."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from inference_plugin.footprints import Interests
from inference_plugin.leadership import AlwaysLeads

if TYPE_CHECKING:
    from inference_plugin.carriers import Permissions
    from inference_plugin.cluster import Cluster
    from inference_plugin.counters import Counters
    from inference_plugin.events import Recorder
    from inference_plugin.leadership import Leadership
    from inference_plugin.locks import ObjectLocks, WaitSlots
    from inference_plugin.telemetry import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """The cluster, the ways to tell of it, and the bounds on what is done at once.

    ``counters`` are those of the data plane, None where the server was given no Prometheus;
    ``leadership`` says whether this server looks after drift and ends of life, or only answers;
    ``interests`` which Rollouts a change of the cluster concerns.
    """

    cluster: Cluster
    recorder: Recorder
    metrics: Metrics
    locks: ObjectLocks
    slots: WaitSlots
    permissions: Permissions
    counters: Counters | None = None
    leadership: Leadership | AlwaysLeads = field(default_factory=AlwaysLeads)
    interests: Interests = field(default_factory=Interests)
