"""The ledger's ConfigMap on the real API server: writes of others are never lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from inference_analysis.argo import store as store_module
from inference_analysis.argo.books import Book, Entry
from inference_analysis.argo.protocol import Outcome
from inference_analysis.argo.store import Store, ledger_name
from inference_analysis.errors import LedgerError
from inference_common.kube import CONFIGMAP, ROLLOUT, PatchKind
from support import manifests as m

if TYPE_CHECKING:
    from support.scenario import Scenario

KEY = "6d5f.json"


def entry(run: str) -> Entry:
    return Entry(run=run, at=1.0, outcome=Outcome.SUCCESSFUL, verdict="pass", lines=["a"])


@pytest.fixture
async def uid(scenario: Scenario) -> str:
    """Uid of a Rollout: the ledger goes with it."""
    template = m.pod_template(m.noop(), labels={"app": "chat"})
    await scenario.apply(m.rollout("chat", template, {}, replicas=0))
    return str((await scenario.get(ROLLOUT, "chat"))["metadata"]["uid"])


def the_store(scenario: Scenario, uid: str) -> Store:
    return Store(scenario.kube, scenario.namespace, "chat", uid)


async def test_looks_booked_at_the_same_time_are_all_in_the_ledger(
    scenario: Scenario, uid: str
) -> None:
    runs = [f"u{number}" for number in range(4)]
    await asyncio.gather(
        *(
            the_store(scenario, uid).change(KEY, lambda book, run=run: book.with_entry(entry(run)))  # type: ignore[misc]
            for run in runs
        )
    )
    book = await the_store(scenario, uid).read(KEY)
    assert sorted(item.run for item in book.entries) == runs
    found = await scenario.get(CONFIGMAP, ledger_name("chat"))
    (owner,) = found["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("Rollout", uid)


async def test_a_conflict_shows_the_change_what_the_other_one_wrote(
    scenario: Scenario, uid: str
) -> None:
    store = the_store(scenario, uid)
    await store.change(KEY, lambda book: book.with_entry(entry("u1")))
    seen: list[list[str]] = []
    interfered = asyncio.Event()

    async def interfere() -> None:
        await the_store(scenario, uid).change(KEY, lambda book: book.with_entry(entry("u2")))
        interfered.set()

    class Slow(Store):
        """Lets the other one write between its own read and its write."""

        async def _write(self, found: dict[str, object] | None, data: dict[str, str]) -> None:
            if not interfered.is_set():
                await interfere()
            await super()._write(found, data)

    def change(book: Book) -> Book:
        seen.append([item.run for item in book.entries])
        return book.with_entry(entry("u3"))

    slow = Slow(scenario.kube, scenario.namespace, "chat", uid)
    book = await slow.change(KEY, change)
    assert seen == [["u1"], ["u1", "u2"]]
    assert [item.run for item in book.entries] == ["u1", "u2", "u3"]


async def test_a_ledger_that_somebody_rewrites_all_the_time_gives_no_verdict(
    scenario: Scenario, uid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_PAUSE_S", 0.0)
    store = the_store(scenario, uid)
    await store.change(KEY, lambda book: book.with_entry(entry("u1")))

    class Interfered(Store):
        async def _write(self, found: dict[str, object] | None, data: dict[str, str]) -> None:
            name = ledger_name("chat")
            self.writes = getattr(self, "writes", 0) + 1
            note = {"metadata": {"annotations": {"rewritten": str(self.writes)}}}
            await scenario.kube.patch(
                CONFIGMAP, name, note, scenario.namespace, kind=PatchKind.MERGE
            )
            await super()._write(found, data)

    with pytest.raises(LedgerError, match="changed by others"):
        await Interfered(scenario.kube, scenario.namespace, "chat", uid).change(
            KEY, lambda book: book.with_entry(entry("u2"))
        )
    assert [item.run for item in (await store.read(KEY)).entries] == ["u1"]
