"""When the server first saw something of an object: acceptance by a gateway, a selector's change.

Neither stands on the object as a time that can be relied on, and settle times count from there.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from inference_common.names import FIELD_MANAGER
from inference_common.pools import hash_of, is_v1
from inference_common.watching import key_of
from inference_plugin.gateway_status import unaccepted

if TYPE_CHECKING:
    from collections.abc import Callable

Object = dict[str, Any]


class Sightings:
    """What routes and pools were seen to become, and when, by a monotonic clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Nothing has been seen yet."""
        self._clock = clock
        self._accepted: dict[tuple[str, str, str], tuple[str, int, float]] = {}
        self._aimed: dict[tuple[bool, str, str], tuple[str, str | None, float]] = {}

    def accepted_for_s(self, route: Object) -> float | None:
        """Seconds since this generation of the route was first seen accepted."""
        uid, generation, since = self._accepted.get((route["kind"], *key_of(route)), ("", -1, 0.0))
        metadata = route["metadata"]
        if (uid, generation) != (metadata["uid"], metadata.get("generation", 0)):
            return None
        return self._clock() - since

    def aimed_for_s(self, pool: Object) -> float:
        """Seconds since the pool's selector was last seen to change hands."""
        uid, _, since = self._aimed.get((is_v1(pool), *key_of(pool)), ("", None, float("-inf")))
        if uid != pool["metadata"]["uid"]:
            return float("inf")
        return self._clock() - since

    def note_route(self, kind: str, route: Object) -> None:
        """Take in a watch event of a route."""
        key = (route["kind"], *key_of(route))
        if kind == "DELETED" or unaccepted(route):
            self._accepted.pop(key, None)
            return
        metadata = route["metadata"]
        state = (metadata["uid"], metadata.get("generation", 0))
        if self._accepted.get(key, ("", -1, 0.0))[:2] != state:
            self._accepted[key] = (*state, self._clock())

    def note_pool(self, kind: str, pool: Object) -> None:
        """Take in a watch event of a pool."""
        key = (is_v1(pool), *key_of(pool))
        if kind == "DELETED":
            self._aimed.pop(key, None)
            return
        uid, aimed_at, since = self._aimed.get(key, ("", None, 0.0))
        if uid != pool["metadata"]["uid"]:
            since = self._clock() - applied_ago_s(pool, time.time())
        elif aimed_at != hash_of(pool):
            since = self._clock()
        self._aimed[key] = (pool["metadata"]["uid"], hash_of(pool), since)


def applied_ago_s(obj: Object, now: float) -> float:
    """Seconds since this plugin last applied to the object, by its managedFields.

    Infinite if never.
    ``now`` is in seconds since the epoch. It lets a restarted server know how fresh a selector is.
    """
    times = [
        datetime.fromisoformat(field["time"]).timestamp()
        for field in obj["metadata"].get("managedFields") or []
        if field.get("manager") == FIELD_MANAGER
        and field.get("operation") == "Apply"
        and "time" in field
    ]
    return max(now - max(times), 0.0) if times else float("inf")
