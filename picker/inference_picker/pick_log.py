"""The pick log: a JSON line for each request, written beside the requests, never before them."""

from __future__ import annotations

import json
import queue
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import structlog

from inference_picker.outcomes import failure_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from inference_picker.messages import Finish, Reject

_log = structlog.get_logger(__name__)

REQUEST_ID: Final = "x-request-id"
_MAX_WAITING: Final = 10_000
_BATCH: Final = 500


def finished_line(
    headers: Mapping[str, str], finish: Finish, at: float, *, pool: str = ""
) -> dict[str, Any]:
    """What the log keeps of a request that was given an endpoint; ``at`` in Unix seconds."""
    pick = finish.pick
    usage = None if finish.tokens is None else finish.tokens.usage
    return {
        "at": round(at, 3),
        "pool": pool,
        "request": headers.get(REQUEST_ID, ""),
        "model": pick.model,
        "target": pick.target,
        "version": pick.version,
        "endpoint": pick.endpoints[0],
        "served": finish.served,
        "sample": pick.sample,
        "phase": pick.phase,
        "status": finish.status,
        "ended": finish.ended,
        "error": failure_of(finish),
        "ttft_s": _rounded(finish.first_token_s),
        "duration_s": _rounded(finish.duration_s),
        "tokens": None
        if usage is None
        else {"prompt": usage.prompt, "output": usage.output, "cached": usage.cached},
        "decision": None if pick.decision is None else pick.decision.as_dict(),
    }


def refused_line(
    headers: Mapping[str, str], reject: Reject, at: float, *, pool: str = ""
) -> dict[str, Any]:
    """What the log keeps of a request that the picker answered itself."""
    return {
        "at": round(at, 3),
        "pool": pool,
        "request": headers.get(REQUEST_ID, ""),
        "status": reject.status,
        "error": reject.reason,
        "message": reject.message,
    }


class PickLog:
    """Lines go to a thread, which writes them to a file.

    When the disk is slower than the requests, lines are dropped and counted. A file that grows
    over ``max_bytes`` is renamed to ``NAME.1``, the older one is replaced.
    """

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        """Nothing is opened before the log is entered."""
        self.dropped: Counter[str] = Counter()
        """Lines that were not written, by pool."""
        self._path = path
        self._max_bytes = max_bytes
        self._waiting: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="pick log", daemon=True)

    def __enter__(self) -> Self:
        # A path that can't be written is told at the start.
        self._path.open("ab").close()
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._waiting.put(None)
        self._thread.join()

    def put(self, line: dict[str, Any]) -> None:
        """Take a line, or drop it; returns at once."""
        if self._waiting.qsize() >= _MAX_WAITING:
            self.dropped[line.get("pool", "")] += 1
            return
        self._waiting.put(line)

    def _write(self) -> None:
        ended = False
        while not ended:
            lines: list[dict[str, Any]] = []
            line = self._waiting.get()
            while line is not None and len(lines) < _BATCH:
                lines.append(line)
                try:
                    line = self._waiting.get_nowait()
                except queue.Empty:
                    break
            else:
                ended = line is None
                if line is not None:
                    lines.append(line)
            try:
                self._append(lines)
            except OSError as error:
                self.dropped.update(line.get("pool", "") for line in lines)
                _log.warning("the pick log can't be written", error=str(error))

    def _append(self, lines: list[dict[str, Any]]) -> None:
        text = "".join(f"{json.dumps(line, separators=(',', ':'))}\n" for line in lines)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text)
            size = file.tell()
        if size > self._max_bytes:
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
