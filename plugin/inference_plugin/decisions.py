"""What is to be done now for one command: the outcome of planning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inference_plugin.patches import Write
    from inference_plugin.targets import Wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do now for one command.

    ``writes`` first, in order; with none left, ``reached`` says whether the objects carry what
    was commanded, ``unaccepted`` what the gateways have not taken in of it, ``prepared`` whether
    nothing is left to get ready for the next step, ``hold`` why pods must stay for the moment.
    """

    writes: tuple[Write, ...] = ()
    waits: tuple[Wait, ...] = ()
    notes: tuple[str, ...] = ()
    drifted: bool = False
    reached: bool = False
    unaccepted: str = ""
    prepared: bool = True
    hold: Wait | None = None

    @property
    def verified(self) -> bool:
        """Whether the traffic is where the command wants it."""
        return self.reached and not self.unaccepted

    @property
    def done(self) -> bool:
        """Whether nothing has to happen any more."""
        return self.verified and self.prepared and self.hold is None

    @property
    def retry_s(self) -> float | None:
        """When to look again even if nothing changes."""
        waits = [*self.waits, *([self.hold] if self.hold else [])]
        return min((wait.retry_s for wait in waits if wait.retry_s is not None), default=None)
