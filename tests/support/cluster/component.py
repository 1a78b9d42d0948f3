"""What the supervisor needs to know of one process of the cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A supervised process.

    ``ready`` answers whether it serves; any exception that it raises counts as "not yet".
    ``patience_s`` bounds the wait for it, ``stop_s`` the time between SIGTERM and SIGKILL.
    """

    name: str
    argv: tuple[str | Path, ...]
    cwd: Path
    ready: Callable[[], Awaitable[bool]]
    env: Mapping[str, str] = field(default_factory=dict)
    patience_s: float = 240.0
    stop_s: float = 5.0
