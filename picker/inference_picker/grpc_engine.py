"""Which of its two I/O engines gRPC serves with.

The newer one, its default, hands each event of a socket from one thread to another. For an
exchange's small messages that costs 11 to 25 % of all CPU; the older one reads in the thread that
waits. ``GRPC_EXPERIMENTS`` is documented in gRPC's doc/environment_variables.md; a version that
has only one engine left says so in its log and goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_VARIABLE: Final = "GRPC_EXPERIMENTS"


def choose_engine(environment: MutableMapping[str, str]) -> None:
    """Ask for the older engine, unless the user has asked for something.

    Only before `grpc` is imported, which reads the variable once.
    """
    environment.setdefault(_VARIABLE, "-event_engine_listener")
