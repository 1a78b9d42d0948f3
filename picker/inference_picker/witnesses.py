"""Who is told of each request when it is over: the pick log, the spans."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Protocol

from inference_picker import tracing
from inference_picker.errors import ConfigError
from inference_picker.pick_log import PickLog, finished_line, refused_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from opentelemetry.sdk.trace import TracerProvider

    from inference_picker.messages import Finish, Reject


class Witness(Protocol):
    """Is told; must return at once. ``at`` is in Unix seconds."""

    def finished(self, headers: Mapping[str, str], finish: Finish, at: float) -> None:
        """A request that was given an endpoint is over."""
        ...

    def refused(self, headers: Mapping[str, str], reject: Reject, at: float) -> None:
        """The picker answered a request itself."""
        ...


class LogWitness:
    """Writes to the pick log."""

    def __init__(self, log: PickLog, pool: str) -> None:
        """Write to this log what this pool does."""
        self._log = log
        self._pool = pool

    def finished(self, headers: Mapping[str, str], finish: Finish, at: float) -> None:
        """Write a line."""
        self._log.put(finished_line(headers, finish, at, pool=self._pool))

    def refused(self, headers: Mapping[str, str], reject: Reject, at: float) -> None:
        """Write a line."""
        self._log.put(refused_line(headers, reject, at, pool=self._pool))


class Witnesses:
    """All of them, and the wall clock that they go by."""

    def __init__(
        self,
        *,
        log: PickLog | None = None,
        provider: TracerProvider | None = None,
        pool: str = "",
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Tell these what becomes of this pool's requests."""
        self.log = log
        self._all: tuple[Witness, ...] = (
            *([] if log is None else [LogWitness(log, pool)]),
            *([] if provider is None else [tracing.Spans(provider, pool)]),
        )
        self._wall_clock = wall_clock

    @property
    def explain(self) -> bool:
        """Whether decisions are to be explained."""
        return self.log is not None

    def finished(self, headers: Mapping[str, str], finish: Finish) -> None:
        """A request that was given an endpoint is over, now."""
        if self._all:
            at = self._wall_clock()
            for witness in self._all:
                witness.finished(headers, finish, at)

    def refused(self, headers: Mapping[str, str], reject: Reject) -> None:
        """The picker answered a request itself, now."""
        if self._all:
            at = self._wall_clock()
            for witness in self._all:
                witness.refused(headers, reject, at)


@contextlib.contextmanager
def open_witnesses(
    pick_log: Path | None, *, max_bytes: int
) -> Iterator[Callable[[str], Witnesses]]:
    """Those that flag and environment ask for, by pool.

    Raises ConfigError for a log that can't be had.
    """
    with contextlib.ExitStack() as stack:
        log = None
        if pick_log is not None:
            try:
                log = stack.enter_context(PickLog(pick_log, max_bytes=max_bytes))
            except OSError as error:
                raise ConfigError(f"--pick-log {pick_log}: can't be written: {error}") from error
        provider = None
        if tracing.wanted(os.environ):
            provider = tracing.exporting_provider()
            # Sends what is left.
            stack.callback(provider.shutdown)
        yield lambda pool: Witnesses(log=log, provider=provider, pool=pool)
