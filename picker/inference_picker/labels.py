"""The values of the labels ``endpoint``, ``version`` and ``model_name``, kept few."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from inference_picker.pool import PoolSnapshot

OTHER: Final = "other"
"""Label of model names that neither a split nor an endpoint knows, and of endpoints above the
cap: clients choose names freely, and a label must not."""
MAX_ENDPOINTS: Final = 1_000
KEPT_S: Final = 900.0
"""How long the series of an endpoint that left are kept: several scrapes of any set-up."""


class EndpointLabels:
    """Names endpoints by their pods: ``pod``, or ``pod:port`` where the pod has several ports.

    At most ``limit`` names are in use at a time; the name of an endpoint that left the pool is
    free again after `KEPT_S`.
    """

    def __init__(self, limit: int = MAX_ENDPOINTS) -> None:
        """Start without any."""
        self._limit = limit
        self._pool: PoolSnapshot | None = None
        self._known: dict[str, tuple[str, str]] = {}
        self._used: set[str] = set()
        self._left_at: dict[str, float] = {}

    def of(self, address: str, pool: PoolSnapshot) -> tuple[str, str] | None:
        """Label and version of an address; None where the pool never had it."""
        if pool is not self._pool:
            self._take(pool)
        return self._known.get(address)

    def gone(self, pool: PoolSnapshot, at: float) -> frozenset[str]:
        """The labels of endpoints that left `KEPT_S` ago; they are free from now on."""
        if pool is not self._pool:
            self._take(pool)
        present = {each.address for each in pool.endpoints}
        for address in self._known:
            if address in present:
                self._left_at.pop(address, None)
            else:
                self._left_at.setdefault(address, at)
        expired = [each for each, left in self._left_at.items() if at - left >= KEPT_S]
        freed = set()
        for address in expired:
            del self._left_at[address]
            freed.add(self._known.pop(address)[0])
        freed -= {label for label, _ in self._known.values()} | {OTHER}
        self._used -= freed
        return frozenset(freed)

    def _take(self, pool: PoolSnapshot) -> None:
        ports = Counter(each.pod for each in pool.endpoints)
        for each in pool.endpoints:
            label = each.pod or each.address
            if each.pod and ports[each.pod] > 1:
                label = f"{each.pod}:{each.address.rpartition(':')[2]}"
            if label not in self._used:
                if len(self._used) >= self._limit:
                    label = OTHER
                else:
                    self._used.add(label)
            self._known[each.address] = (label, each.version)
        self._pool = pool


def model_label(pool: PoolSnapshot, name: str) -> str:
    """The name where the pool knows it, else `OTHER`; empty stays empty."""
    return name if not name or name in pool.names else OTHER
