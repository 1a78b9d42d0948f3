"""What a model server's metrics page says about its load."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """One page of one endpoint, in the words of vLLM; other engines are mapped onto them."""

    running: float = 0.0
    """Requests in the batch."""
    waiting: float = 0.0
    """Requests in the queue."""
    kv_usage: float = 0.0
    """Share of the KV cache in use, 0 to 1."""
    kv_blocks: int | None = None
    """Blocks of the whole KV cache."""
    block_size: int | None = None
    """Tokens in a block."""
    adapters_running: frozenset[str] = frozenset()
    adapters_waiting: frozenset[str] = frozenset()
    max_adapters: int | None = None
    """Adapters that fit into a batch."""

    @property
    def kv_tokens(self) -> float | None:
        """Tokens that the KV cache can hold, where the page tells."""
        if self.kv_blocks is None or self.block_size is None:
            return None
        return float(self.kv_blocks * self.block_size)
