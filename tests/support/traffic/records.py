"""One request as its client saw it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_SELF_INTRODUCTION: Final = re.compile(r"^I am (?P<adapter>\S+) on ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A finished request. Times in seconds; ``start`` by the event loop's clock."""

    number: int
    start: float
    duration: float
    status: int | None
    """HTTP status, None when there was no answer."""
    error: str | None
    """What went wrong, None for a complete answer."""
    time_to_first_token: float | None = None
    chunks: int = 0
    """Stream events that carried text; the simulated vLLM sends one per token."""
    text: str = ""
    fingerprint: str | None = None
    model: str | None = None
    """The ``model`` of the answer, which a picker may have rewritten to the asked one."""
    served_by: str | None = None
    """Response header x-served-by: pod and version."""

    @property
    def ok(self) -> bool:
        """Whether the answer was complete: status 200, and the stream ended with [DONE]."""
        return self.error is None

    @property
    def version(self) -> str | None:
        """Version of the model server: ``system_fingerprint``."""
        return self.fingerprint

    @property
    def adapter(self) -> str | None:
        """The LoRA adapter that answered, as the simulated model introduces itself.

        Not from ``model``: whoever draws the adapter rewrites that to what was asked for.
        """
        found = _SELF_INTRODUCTION.match(self.text)
        return found["adapter"] if found else None

    @property
    def answered_by(self) -> str:
        """The adapter, else the version; ``unknown`` when the answer names neither."""
        return self.adapter or self.version or "unknown"

    def __str__(self) -> str:
        if self.ok:
            return f"request {self.number}: answered by {self.answered_by} in {self.duration:.3f} s"
        status = "no status" if self.status is None else f"status {self.status}"
        return (
            f"request {self.number} after {self.duration:.3f} s, {self.chunks} chunks, {status}, "
            f"from {self.served_by or 'nobody known'}: {self.error}"
        )
