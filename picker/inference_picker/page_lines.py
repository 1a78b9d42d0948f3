"""The lines of one series on the pages of one endpoint, and where they are.

A page has hundreds of lines and comes twenty times a second, and from one to the next little but
digits changes. So a series is looked for on the whole page once in a while, and in between only
near the place where it was. In the text format all lines of a series stand together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Value = TypeVar("Value")

_SHIFT: Final = 256
"""Bytes by which numbers above a series may have become longer or shorter between two pages."""


class PageLines(Generic[Value]):
    """One series: its lines on the page that was looked at last, and what they mean.

    A pattern is a name, or ``NAME{*TEXT`` for the lines with TEXT among their labels.
    """

    __slots__ = ("_heads", "_key", "_parse", "_raw", "_wanted", "start", "value")

    def __init__(
        self, page: bytes, runs: list[slice], pattern: bytes, parse: Callable[[list[bytes]], Value]
    ) -> None:
        """`search` makes it, where the page has the series."""
        name, wanted = _parted(pattern)
        self._heads = _heads(name)
        self._wanted = wanted
        self._parse = parse
        # Together with the end of the line above, as a longer name may end with this one. Where
        # there is no such line, or the lines are scattered, nothing is remembered.
        first = runs[0].start
        self.start = first - 1 if len(runs) == 1 else -1
        self._raw = page[max(0, self.start) : runs[0].stop]
        self._key = b"\n" + page[first : first + len(name) + 1]
        self.value = parse([line for run in runs for line in _chosen(page[run], wanted)])

    @classmethod
    def search(
        cls, page: bytes, pattern: bytes, parse: Callable[[list[bytes]], Value]
    ) -> PageLines[Value] | None:
        """Look through the whole page; None where the series is not there."""
        name, wanted = _parted(pattern)
        runs = _runs(page, name)
        if not any(_chosen(page[run], wanted) for run in runs):
            return None
        return cls(page, runs, pattern, parse)

    def follow(self, page: bytes, shift: int) -> int | None:
        """Take the value from a newer page, if the lines are about where they were.

        ``shift`` is by how many bytes the line before was moved. Returns the same for this one, or
        None where only a search can tell; the value is the old one then.
        """
        if self.start < 0:
            return None
        at = self.start + shift
        end = at + len(self._raw)
        if not page.startswith(self._raw, at) or page.startswith(self._heads, end):
            at = page.find(self._key, max(0, at - _SHIFT), at + _SHIFT + len(self._key))
            if at < 0:
                return None
            end = _end_of_run(page, self._heads, at + 1)
            raw = page[at:end]
            if raw != self._raw:
                lines = _chosen(raw, self._wanted)
                if not lines:
                    return None
                self._raw = raw
                self.value = self._parse(lines)
        if page.startswith(self._heads, page.rfind(b"\n", 0, at) + 1):
            # There are more of its lines above.
            return None
        moved = at - self.start
        self.start = at
        return moved


def _parted(pattern: bytes) -> tuple[bytes, bytes]:
    name, _, wanted = pattern.partition(b"{*")
    return name, wanted


def _heads(name: bytes) -> tuple[bytes, bytes]:
    """How its lines begin: a longer name may begin with this one."""
    return name + b"{", name + b" "


def _runs(page: bytes, name: bytes) -> list[slice]:
    """Where whole lines of the series stand together, the end of the last line included."""
    heads = _heads(name)
    runs: list[slice] = []
    at = 0 if page.startswith(name) else _next_line(page, name, 0)
    while at is not None:
        end = _end_of_run(page, heads, at)
        if end > at:
            runs.append(slice(at, end))
        at = _next_line(page, name, max(at, end - 1))
    return runs


def _end_of_run(page: bytes, heads: tuple[bytes, bytes], start: int) -> int:
    """The end of the lines of a series that begin here; the start where there are none.

    A line without an end may have been cut within its number.
    """
    while page.startswith(heads, start) and (end := page.find(b"\n", start)) >= 0:
        start = end + 1
    return start


def _next_line(page: bytes, name: bytes, start: int) -> int | None:
    found = page.find(b"\n" + name, start)
    return None if found < 0 else found + 1


def _chosen(run: bytes, wanted: bytes) -> list[bytes]:
    return [line for line in run.split(b"\n") if line and wanted in line]
