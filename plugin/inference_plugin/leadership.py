"""Which of several servers looks after drift: the holder of a Lease.

The semantics are those of client-go's leader election (k8s.io/client-go v0.36
tools/leaderelection): a lease expires by the time that passed here since it was last *seen* to
change, never by comparing clocks of two machines, and the holder stops believing in itself before
anybody else may take over.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import structlog

from inference_common.errors import KubeError
from inference_common.kube import LEASE

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference_common.kube import Kube

Object = dict[str, Any]
_log = structlog.get_logger(__name__)
_RELEASED_S: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTerms:
    """Client-go's own, in seconds.

    How long others respect a silent holder, how long it trusts itself, how often it renews.
    """

    duration_s: float = 15.0
    deadline_s: float = 10.0
    period_s: float = 2.0


class AlwaysLeads:
    """The only server there is."""

    lease = ""

    @property
    def leads(self) -> bool:
        """True."""
        return True


class Leadership:
    """Competes for one Lease. ``on_change`` is told when this server begins or ceases to lead."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        name: str,
        *,
        identity: str,
        on_change: Callable[[bool], None],
        terms: LeaseTerms | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is asked for before ``run``."""
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._on_change = on_change
        self._terms = terms or LeaseTerms()
        self._clock = clock
        self._seen = ""
        self._seen_at = 0.0
        self._trusted_until = float("-inf")
        self._told = False

    @property
    def lease(self) -> str:
        """The Lease, ``namespace/name``."""
        return f"{self._namespace}/{self._name}"

    @property
    def leads(self) -> bool:
        """Whether this server has held the Lease within its own deadline."""
        return self._clock() < self._trusted_until

    async def run(self) -> None:
        """Try to get and to keep the Lease, until cancelled."""
        while True:
            try:
                # A try that hangs must not outlast the deadline unnoticed.
                async with asyncio.timeout(self._terms.deadline_s / 2):
                    await self.step()
            except (KubeError, TimeoutError) as error:
                conflict = isinstance(error, KubeError) and error.conflict
                if not conflict:
                    _log.warning("lease not reached", lease=self.lease, error=str(error))
            self._tell()
            await asyncio.sleep(self._terms.period_s)

    async def release(self) -> None:
        """Give the Lease up, so that another server need not wait for it to expire."""
        if not self.leads:
            return
        self._trusted_until = float("-inf")
        lease = await self._kube.get(LEASE, self._name, self._namespace)
        if (lease.get("spec") or {}).get("holderIdentity") == self._identity:
            spec = lease["spec"] | {
                "holderIdentity": "",
                "leaseDurationSeconds": _RELEASED_S,
                "renewTime": _now(),
            }
            await self._kube.replace(LEASE, self._name, lease | {"spec": spec}, self._namespace)
            _log.info("lease released", lease=self.lease)

    async def step(self) -> None:
        """One look at the Lease, and a write if it is ours or free. Raises KubeError.

        A 409 says that another server was faster.
        """
        started = self._clock()
        try:
            lease = await self._kube.get(LEASE, self._name, self._namespace)
        except KubeError as error:
            if not error.not_found:
                raise
            body = {"metadata": {"name": self._name}, "spec": self._held(None)}
            created = await self._kube.create(LEASE, body, self._namespace)
            self._held_since(started, created)
            return
        spec = lease.get("spec") or {}
        version = lease["metadata"]["resourceVersion"]
        if version != self._seen:
            self._seen, self._seen_at = version, self._clock()
        holder = spec.get("holderIdentity") or ""
        if holder != self._identity:
            self._trusted_until = float("-inf")
            expires_at = self._seen_at + float(spec.get("leaseDurationSeconds") or 0)
            if holder and self._clock() < expires_at:
                return
        body = lease | {"spec": self._held(spec)}
        replaced = await self._kube.replace(LEASE, self._name, body, self._namespace)
        self._held_since(started, replaced)

    def _held(self, before: Object | None) -> Object:
        """The spec of the Lease with us as its holder."""
        now = _now()
        spec: Object = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": round(self._terms.duration_s),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": 0,
        }
        if before is None:
            return spec
        transitions = int(before.get("leaseTransitions") or 0)
        if before.get("holderIdentity") == self._identity:
            kept = {"acquireTime": before.get("acquireTime", now), "leaseTransitions": transitions}
            return before | spec | kept
        return before | spec | {"leaseTransitions": transitions + 1}

    def _held_since(self, started: float, lease: Object) -> None:
        """The Lease is ours, from the moment before we asked for it."""
        self._seen, self._seen_at = lease["metadata"]["resourceVersion"], self._clock()
        self._trusted_until = started + self._terms.deadline_s
        self._tell()

    def _tell(self) -> None:
        leads = self.leads
        if leads != self._told:
            self._told = leads
            _log.info("leads" if leads else "leads no longer", lease=self.lease)
            self._on_change(leads)


def _now() -> str:
    return datetime.now(tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
