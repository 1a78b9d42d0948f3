"""Progress of the builds: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from rich.progress import Progress, TaskID

    from support.toolchain.recipe import Recipe

_TICK_S = 0.5
# A build that outlasts its estimate keeps moving, ever slower, and never claims to be done.
_ALMOST = 0.97


class Show(Protocol):
    """Where the progress of the builds goes."""

    def found(self, name: str) -> None:
        """Tell that another process has built it in the meantime."""

    def building(self, name: str) -> AbstractContextManager[None]:
        """Show that it is being built, until the block ends."""


@contextmanager
def progress(recipes: list[Recipe]) -> Iterator[Show]:
    """Show the progress of these builds on stderr."""
    estimates = {recipe.name: recipe.estimate_s for recipe in recipes}
    total = sum(estimates.values())
    if total:
        _say(
            f"Building {', '.join(estimates)} once: about {max(1, round(total / 60))} min on two"
            " cores, cached for every later run."
        )
    if not sys.stderr.isatty():
        yield _Lines(estimates)
        return
    from rich.console import Console  # noqa: PLC0415 - a warm start shows no progress
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("of about {task.total:.0f} s"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks = {name: bars.add_task(name, total=s, start=False) for name, s in estimates.items()}
        yield _Bars(bars, tasks, estimates)


class _Lines:
    def __init__(self, estimates: dict[str, int]) -> None:
        self._estimates = estimates

    def found(self, name: str) -> None:
        _say(f"{name}: built by another process")

    @contextmanager
    def building(self, name: str) -> Iterator[None]:
        _say(f"{name}: building (about {self._estimates[name]} s on two cores)")
        started = time.monotonic()
        yield
        _say(f"{name}: built in {time.monotonic() - started:.0f} s")


class _Bars:
    def __init__(self, bars: Progress, tasks: dict[str, TaskID], estimates: dict[str, int]) -> None:
        self._bars = bars
        self._tasks = tasks
        self._estimates = estimates

    def found(self, name: str) -> None:
        if name in self._tasks:
            self._bars.update(self._tasks[name], completed=self._estimates[name])

    @contextmanager
    def building(self, name: str) -> Iterator[None]:
        task, estimate = self._tasks[name], self._estimates[name]
        self._bars.start_task(task)
        started = time.monotonic()

        def tick() -> None:
            done = advanced(time.monotonic() - started, estimate)
            self._bars.update(task, completed=done)

        with _every(_TICK_S, tick):
            yield
        self._bars.update(task, completed=estimate)
        self._bars.stop_task(task)


def advanced(elapsed_s: float, estimate_s: float) -> float:
    """How far a build appears after a time: linear up to most of it, then asymptotic."""
    linear = estimate_s * _ALMOST
    if elapsed_s <= linear:
        return elapsed_s
    rest = estimate_s - linear
    return linear + rest * (1 - 1 / (1 + (elapsed_s - linear) / estimate_s))


@contextmanager
def _every(seconds: float, call: Callable[[], None]) -> Iterator[None]:
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(seconds):
            call()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
