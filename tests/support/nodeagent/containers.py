"""States of a container, and what follows from them: restart or not, and after how long.

A record is immutable; each transition makes a new one, so that a status can be computed from
records at any time.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping

FIRST_BACKOFF_S: Final = 10.0
LAST_BACKOFF_S: Final = 300.0
BACKOFF_RESET_S: Final = 600.0
"""A container that ran this long starts over with its back-off, as with a kubelet."""

SIGNAL_BASE: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Not running: about to start, or held back by something."""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Running since a moment."""

    since: dt.datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminated:
    """Ended, with an exit code; 128 + n where signal n ended it."""

    exit_code: int
    reason: str
    since: dt.datetime
    until: dt.datetime
    message: str = ""

    @property
    def ran_s(self) -> float:
        """Seconds that it ran."""
        return (self.until - self.since).total_seconds()


State = Waiting | Running | Terminated


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRecord:
    """A container now.

    ``probed_ready`` is the readiness probe's verdict, or true without one; ``started`` the
    startup probe's. Both are meaningful only while it runs.
    """

    name: str
    image: str
    state: State
    last: Terminated | None = None
    restarts: int = 0
    probed_ready: bool = False
    started: bool = False

    @property
    def ready(self) -> bool:
        """Whether it runs and its probes say that it can serve."""
        return isinstance(self.state, Running) and self.started and self.probed_ready

    @property
    def container_id(self) -> str:
        """An id that changes with each start."""
        return f"process://{self.name}/{self.restarts}"

    def waits(self, reason: str, message: str = "") -> ContainerRecord:
        """The record while it is held back."""
        last = self.state if isinstance(self.state, Terminated) else self.last
        return dataclasses.replace(
            self, state=Waiting(reason=reason, message=message), last=last, **_UNREADY
        )

    def runs(self, now: dt.datetime, *, started: bool, ready: bool) -> ContainerRecord:
        """The record once its process runs; every run after the first counts as a restart."""
        last = self.state if isinstance(self.state, Terminated) else self.last
        restarts = self.restarts + (1 if last is not None else 0)
        return dataclasses.replace(
            self,
            state=Running(since=now),
            last=last,
            restarts=restarts,
            started=started,
            probed_ready=ready,
        )

    def ends(
        self, exit_code: int, now: dt.datetime, reason: str = "", message: str = ""
    ) -> ContainerRecord:
        """The record once its process is gone; reasons are those of a kubelet."""
        since = self.state.since if isinstance(self.state, Running) else now
        reason = reason or ("Completed" if exit_code == 0 else "Error")
        state = Terminated(
            exit_code=exit_code, reason=reason, since=since, until=now, message=message
        )
        return dataclasses.replace(self, state=state, **_UNREADY)

    def probed(self, *, started: bool | None = None, ready: bool | None = None) -> ContainerRecord:
        """The record with a probe's new verdict."""
        return dataclasses.replace(
            self,
            started=self.started if started is None else started,
            probed_ready=self.probed_ready if ready is None else ready,
        )


_UNREADY: Final[dict[str, Any]] = {"started": False, "probed_ready": False}


def new_record(container: Mapping[str, Any], reason: str) -> ContainerRecord:
    """The record of a container that has not run yet."""
    return ContainerRecord(
        name=container["name"], image=container["image"], state=Waiting(reason=reason)
    )


def restart_policy(pod: Mapping[str, Any], container: Mapping[str, Any], *, init: bool) -> str:
    """Always, OnFailure or Never for this container.

    An init container restarts on failure unless the pod says Never; one that says Always itself
    is a sidecar (KEP-753).
    """
    own = container.get("restartPolicy")
    whole: str = pod["spec"].get("restartPolicy", "Always")
    if own:
        return str(own)
    if init:
        return "Never" if whole == "Never" else "OnFailure"
    return whole


def restarts_after(policy: str, exit_code: int) -> bool:
    """Whether a container of this policy is started again after such an exit."""
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def backoff_s(previous_s: float | None, ran_s: float) -> float:
    """How long to wait before the next start.

    Zero for the first restart (``previous_s`` None) and after a long run; then 10 s, doubled each
    time up to 300 s, as with a kubelet.
    """
    if previous_s is None or ran_s >= BACKOFF_RESET_S:
        return 0.0
    return min(max(previous_s * 2, FIRST_BACKOFF_S), LAST_BACKOFF_S)


def exit_code_of(return_code: int) -> int:
    """A container's exit code from subprocess' return code, where signals are negative."""
    return return_code if return_code >= 0 else SIGNAL_BASE - return_code
