"""A pool that a file describes, without Kubernetes; read again when the file changes."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

import structlog
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inference_picker.addresses import split_address
from inference_picker.errors import ConfigError
from inference_picker.pool import Endpoint, PoolSnapshot, make_snapshot, note_models
from inference_picker.splits import ModelSplit, Target

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_log = structlog.get_logger(__name__)

INTERVAL_S: Final = 1.0


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class _Endpoint(_Part):
    address: str
    name: str = ""
    version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)


class _Target(_Part):
    name: str
    weight: int = Field(default=1, ge=0)


class _Model(_Part):
    model: str | None = None
    targets: list[_Target]


class _Document(_Part):
    kind: Literal["Endpoints"] = "Endpoints"
    endpoints: list[_Endpoint]
    models: list[_Model] = Field(default_factory=list)
    objectives: dict[str, int] = Field(default_factory=dict)


def read_endpoints(path: Path) -> PoolSnapshot:
    """The pool of a file. Raises ConfigError that names the place in it."""
    try:
        document = _Document.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: can't be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the document"
        raise ConfigError(f"{path}: {place}: {first['msg']}. See docs/scheduling.md.") from error
    seen: set[str] = set()
    for number, each in enumerate(document.endpoints):
        split_address(each.address, flag=f"{path}: endpoints.{number}.address")
        if each.address in seen:
            raise ConfigError(f"{path}: endpoints.{number}: {each.address} is listed twice.")
        seen.add(each.address)
    return make_snapshot(
        (
            Endpoint(
                address=each.address,
                pod=each.name or each.address,
                version=each.version,
                labels=each.labels,
            )
            for each in document.endpoints
        ),
        (
            ModelSplit(
                model=each.model,
                targets=tuple(Target(name=one.name, weight=one.weight) for one in each.targets),
            )
            for each in document.models
        ),
        objectives=document.objectives,
    )


class FileSource:
    """Snapshots of a file; a change that can't be read leaves the last good one in force."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the file. Raises ConfigError where it is wrong."""
        self._path = path
        self._clock = clock
        self._mark = self._stat()
        self._read = read_endpoints(path)
        self._read_at = clock()
        self._problem = ""
        self._listed: dict[str, frozenset[str]] = {}
        self._snapshot: PoolSnapshot | None = None

    @property
    def is_known(self) -> bool:
        """The file has been read."""
        return True

    @property
    def is_ready(self) -> bool:
        """Whether it names an endpoint."""
        return bool(self._read.endpoints)

    def snapshot(self) -> PoolSnapshot:
        """The pool as the file last said it."""
        if self._snapshot is None:
            read = self._read
            self._snapshot = make_snapshot(
                (replace(each, models=self._listed.get(each.address)) for each in read.endpoints),
                (*read.splits.values(), *([read.other] if read.other else [])),
                objectives=read.objectives,
            )
        return self._snapshot

    def list_models(self, address: str, models: frozenset[str] | None) -> None:
        """Note which models an endpoint lists; None when that is no longer known."""
        if note_models(self._listed, address, models):
            self._snapshot = None

    def staleness_s(self) -> float | None:
        """Seconds since the file could last be read; None while it can."""
        return self._clock() - self._read_at if self._problem else None

    def detail(self) -> str:
        """One line about the file, for /readyz."""
        count = len(self._read.endpoints)
        return self._problem or f"{count} endpoints in {self._path}"

    def look(self) -> None:
        """Read the file again if it has changed."""
        mark = self._stat()
        if mark == self._mark:
            if not self._problem:
                self._read_at = self._clock()
            return
        self._mark = mark
        try:
            self._read = read_endpoints(self._path)
        except ConfigError as error:
            self._problem = f"keeping the last good endpoints: {error}"
            _log.warning("the file of endpoints is wrong", problem=self._problem)
            return
        self._problem = ""
        self._read_at = self._clock()
        self._snapshot = None
        _log.info("endpoints read", file=str(self._path), count=len(self._read.endpoints))

    async def run(self) -> None:
        """Look every second until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(INTERVAL_S)

    def _stat(self) -> tuple[int, int, int] | None:
        """What tells one content from another; a ConfigMap's link changes its inode."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
