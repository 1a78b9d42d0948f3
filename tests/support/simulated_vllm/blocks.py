"""The KV cache as vLLM's block pool keeps it: reference counts, LRU eviction, prefix hashes."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class BlockPool:
    """A fixed number of KV blocks.

    A block without a reference is free, yet keeps its content (and its hash) until it is taken
    again, oldest first; so a later request with the same prefix finds it, as in vLLM's
    `v1/core/block_pool.py`.
    """

    def __init__(self, total: int) -> None:
        if total < 1:
            raise ValueError(f"a KV cache needs at least one block, found {total}")
        self.total = total
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(total))
        self._references = [0] * total
        self._hash_of: dict[int, int] = {}
        self._block_of: dict[int, int] = {}

    @property
    def usage(self) -> float:
        """Share of blocks with a reference, 0 to 1 (vllm:kv_cache_usage_perc)."""
        return 1 - len(self._free) / self.total

    @property
    def free(self) -> int:
        """Blocks that can be taken now, cached content included."""
        return len(self._free)

    def cached_prefix(self, hashes: Iterable[int]) -> list[int]:
        """Blocks that hold the longest prefix of `hashes`."""
        found: list[int] = []
        for block_hash in hashes:
            block = self._block_of.get(block_hash)
            if block is None:
                break
            found.append(block)
        return found

    def share(self, blocks: Sequence[int]) -> None:
        """Add a reference to blocks that `cached_prefix` returned."""
        for block in blocks:
            if self._references[block] == 0:
                del self._free[block]
            self._references[block] += 1

    def take(self, count: int) -> list[int] | None:
        """`count` blocks with one reference each, or None (and no change) if too few are free."""
        if count > len(self._free):
            return None
        taken = [self._free.popitem(last=False)[0] for _ in range(count)]
        for block in taken:
            self._references[block] = 1
            evicted = self._hash_of.pop(block, None)
            if evicted is not None:
                del self._block_of[evicted]
        return taken

    def remember(self, block: int, block_hash: int) -> None:
        """Make a full block findable. The first block with a content keeps the hash."""
        if block_hash not in self._block_of and block not in self._hash_of:
            self._block_of[block_hash] = block
            self._hash_of[block] = block_hash

    def release(self, blocks: Iterable[int]) -> None:
        """Drop one reference each; the last block of a prefix is evicted first, as in vLLM."""
        for block in reversed(list(blocks)):
            self._references[block] -= 1
            if self._references[block] == 0:
                self._free[block] = None


def prefix_hashes(tokens: bytes, *, token_bytes: int, block_size: int, salt: str) -> list[int]:
    """One hash for each full block of `block_size` tokens, chained with all blocks before it.

    `salt` is the adapter: the same text under another adapter has another KV content.
    """
    width = token_bytes * block_size
    hashes: list[int] = []
    parent = hash(salt)
    for start in range(0, len(tokens) - width + 1, width):
        parent = hash((parent, tokens[start : start + width]))
        hashes.append(parent)
    return hashes
