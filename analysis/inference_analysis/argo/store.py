"""The edge to the ledger's ConfigMap: read, change, write only if nobody wrote in between."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from inference_analysis.argo.books import read_book, written_book
from inference_analysis.errors import LedgerError
from inference_common.errors import KubeError
from inference_common.kube import CONFIGMAP, ROLLOUT
from inference_common.names import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference_analysis.argo.books import Book
    from inference_common.kube import Kube

_ATTEMPTS: Final = 8
_PAUSE_S: Final = 0.2


def ledger_name(rollout: str) -> str:
    """Name of the ConfigMap that keeps a Rollout's ledger."""
    return f"{rollout}-analysis-ledger"


class Store:
    """The books of one Rollout."""

    def __init__(self, kube: Kube, namespace: str, rollout: str, rollout_uid: str) -> None:
        """``rollout_uid``: the owner, so that the ledger goes when the Rollout does."""
        self._kube = kube
        self._namespace = namespace
        self._rollout = rollout
        self._uid = rollout_uid

    async def read(self, key: str) -> Book:
        """The book of one canary. Raises InputError, KubeError."""
        found = await self._get()
        return read_book((found or {}).get("data") or {}, key)

    async def change(self, key: str, change: Callable[[Book], Book]) -> Book:
        """Apply ``change`` to the book as it stands when the write succeeds, and return that.

        ``change`` is called again with the newer book when somebody wrote in between (409); one
        that returns its argument unchanged writes nothing.

        Raises LedgerError when others write all the time, InputError, KubeError.
        """
        for attempt in range(_ATTEMPTS):
            found = await self._get()
            data = (found or {}).get("data") or {}
            before = read_book(data, key)
            after = change(before)
            if after is before:
                return after
            try:
                await self._write(found, written_book(data, key, after))
            except KubeError as error:
                if not error.conflict:
                    raise
                await asyncio.sleep(_PAUSE_S * attempt)
            else:
                return after
        raise LedgerError(
            f"ConfigMap {self._namespace}/{ledger_name(self._rollout)} was changed by others "
            f"{_ATTEMPTS} times while this look was being booked. Does something rewrite it?"
        )

    async def _get(self) -> dict[str, Any] | None:
        try:
            return await self._kube.get(CONFIGMAP, ledger_name(self._rollout), self._namespace)
        except KubeError as error:
            if error.not_found:
                return None
            raise

    async def _write(self, found: dict[str, Any] | None, data: dict[str, str]) -> None:
        name = ledger_name(self._rollout)
        if found is not None:
            # With the resourceVersion that was read: a stale write answers 409.
            await self._kube.replace(CONFIGMAP, name, found | {"data": data}, self._namespace)
            return
        owner = {
            "apiVersion": ROLLOUT.api_version,
            "kind": ROLLOUT.kind,
            "name": self._rollout,
            "uid": self._uid,
        }
        metadata = {
            "name": name,
            "labels": {f"{PREFIX}/analysis-ledger": "true"},
            "ownerReferences": [owner],
        }
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        await self._kube.create(CONFIGMAP, body, self._namespace)
