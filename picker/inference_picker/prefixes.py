"""Which pod should have which prompt blocks in its prefix cache.

An approximate index, as in the Gateway API Inference Extension's prefix plugin: a pod that was
given a prompt has its blocks from then on, until as many newer ones have followed as its cache
holds. Pods are rows (small integers); the holders of a block are the bits of one integer, so that
matching a prompt against a thousand pods costs one AND for each block.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference_picker.ranking import Floats

DEFAULT_CAPACITY: Final = 31_250
"""Blocks per pod where its cache's size is unknown (GIE's ``lruCapacityPerServer``)."""
DEFAULT_MEMORY: Final = 150_000
"""Entries of all pods together: at up to 550 bytes each they stay near 80 MB."""


class PrefixIndex:
    """Blocks by pod, the least recently used of each pod leaving first."""

    def __init__(
        self, *, capacity: int = DEFAULT_CAPACITY, memory_entries: int = DEFAULT_MEMORY
    ) -> None:
        """``capacity`` bounds one pod's blocks, ``memory_entries`` those of all pods."""
        self._capacity = capacity
        self._memory_entries = memory_entries
        self._holders: dict[int, int] = {}
        self._pods: dict[int, OrderedDict[int, None]] = {}
        self._limits: dict[int, int] = {}

    def __len__(self) -> int:
        """Entries held."""
        return sum(map(len, self._pods.values()))

    def limit(self, row: int, blocks: int) -> None:
        """Note how many blocks the pod's cache really holds."""
        self._limits[row] = max(1, min(blocks, self._capacity))

    def matched(self, blocks: Sequence[int], rows: int) -> Floats:
        """For each row below ``rows``, how many of the first blocks the pod holds in a line."""
        counts = np.zeros(rows)
        alive = -1
        depth = 0
        holders = self._holders
        for block in blocks:
            now = alive & holders.get(block, 0)
            if now != alive:
                # The rows that held every block up to here and lack this one.
                _put(counts, alive & ~now if depth else 0, depth)
                if not now:
                    return counts
                alive = now
            depth += 1
        if depth:
            _put(counts, alive, depth)
        return counts

    def add(self, row: int, blocks: Sequence[int]) -> None:
        """The pod gets a prompt of these blocks."""
        if not blocks:
            return
        held = self._pods.setdefault(row, OrderedDict())
        bit = 1 << row
        holders = self._holders
        # From the last to the first: the end of a prefix is evicted before its beginning.
        for block in reversed(blocks):
            if block in held:
                held.move_to_end(block)
            else:
                held[block] = None
                holders[block] = holders.get(block, 0) | bit
        room = min(
            self._limits.get(row, self._capacity), self._memory_entries // max(1, len(self._pods))
        )
        while len(held) > room:
            self._release(held.popitem(last=False)[0], bit)

    def drop(self, row: int) -> None:
        """The pod is gone or has restarted: it holds nothing."""
        bit = 1 << row
        for block in self._pods.pop(row, ()):
            self._release(block, bit)
        self._limits.pop(row, None)

    def _release(self, block: int, bit: int) -> None:
        left = self._holders[block] & ~bit
        if left:
            self._holders[block] = left
        else:
            del self._holders[block]


def _put(counts: Floats, bits: int, depth: int) -> None:
    while bits:
        low = bits & -bits
        row = low.bit_length() - 1
        if row < len(counts):
            counts[row] = depth
        bits ^= low
