"""The rules by which a watch cache takes in what it hears, in whatever order it comes."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_common.kube import CONFIGMAP, Kube
from inference_common.watching import WatchCache, version_of


def make_cache() -> WatchCache:
    return WatchCache(cast("Kube", None), CONFIGMAP, "default")


def make_object(version: int, name: str = "x") -> dict[str, Any]:
    return {"metadata": {"namespace": "default", "name": name, "resourceVersion": str(version)}}


def test_a_write_is_read_back_before_the_watch_reports_it() -> None:
    cache = make_cache()
    cache.put(make_object(1))
    cache.put(make_object(7))
    cache.put(make_object(3))
    assert version_of(cache.get("x", "default") or {}) == 7


def test_a_late_answer_to_an_old_write_does_not_bring_a_deleted_object_back() -> None:
    cache = make_cache()
    cache.put(make_object(1))
    cache.drop(make_object(5))
    cache.put(make_object(4))
    assert cache.get("x", "default") is None


def test_an_object_created_again_after_its_deletion_is_seen() -> None:
    cache = make_cache()
    cache.put(make_object(1))
    cache.drop(make_object(5))
    cache.put(make_object(6))
    assert cache.get("x", "default") is not None


@given(st.permutations(range(1, 8)))
def test_the_newest_version_wins_in_any_order(versions: list[int]) -> None:
    cache = make_cache()
    for version in versions:
        cache.put(make_object(version))
    assert version_of(cache.get("x", "default") or {}) == 7


def test_subscribers_hear_each_change_once_and_a_broken_one_stops_nobody() -> None:
    cache = make_cache()
    heard: list[tuple[str, int]] = []

    def broken(_kind: str, _obj: dict[str, Any]) -> None:
        raise ValueError("broken")

    cache.subscribe(broken)
    cache.subscribe(lambda kind, obj: heard.append((kind, version_of(obj))))
    for version in (1, 1, 3, 2):
        cache.put(make_object(version))
    cache.drop(make_object(9))
    assert heard == [("ADDED", 1), ("MODIFIED", 3), ("DELETED", 9)]


async def test_until_returns_the_first_true_result_and_times_out_without_one() -> None:
    cache = make_cache()
    cache.put(make_object(4))
    assert await cache.until(lambda c: c.get("x", "default"), 1) == make_object(4) | {
        "apiVersion": "v1",
        "kind": "ConfigMap",
    }
    with pytest.raises(TimeoutError):
        await cache.until(lambda c: c.get("y", "default"), 0.01)


class Indexed:
    """A cache that files objects by the letters of their name's label."""

    def __init__(self) -> None:
        self.cache = WatchCache(
            cast("Kube", None),
            CONFIGMAP,
            index=lambda obj: (obj["metadata"].get("labels") or {}).values(),
        )

    def filed(self, key: str) -> list[str]:
        return sorted(obj["metadata"]["name"] for obj in self.cache.filed(key))


def labelled(version: int, name: str, *values: str) -> dict[str, Any]:
    found = make_object(version, name)
    found["metadata"]["labels"] = {str(at): value for at, value in enumerate(values)}
    return found


def test_objects_are_filed_under_the_keys_that_they_have_now() -> None:
    indexed = Indexed()
    indexed.cache.put(labelled(1, "x", "a", "b"))
    indexed.cache.put(labelled(2, "y", "b", "b"))
    assert [indexed.filed(key) for key in "abc"] == [["x"], ["x", "y"], []]
    indexed.cache.put(labelled(3, "x", "b", "c"))
    assert [indexed.filed(key) for key in "abc"] == [[], ["x", "y"], ["x"]]
    indexed.cache.drop(labelled(4, "x"))
    assert [indexed.filed(key) for key in "abc"] == [[], ["y"], []]


@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.integers(1, 9),
            st.sampled_from("xyz"),
            st.lists(st.sampled_from("abc")),
        )
    )
)
def test_the_index_says_what_a_look_through_all_objects_says(
    changes: list[tuple[bool, int, str, list[str]]],
) -> None:
    indexed = Indexed()
    for deleted, version, name, values in changes:
        change = indexed.cache.drop if deleted else indexed.cache.put
        change(labelled(version, name, *values))
    for key in "abc":
        assert indexed.filed(key) == sorted(
            obj["metadata"]["name"]
            for obj in indexed.cache.items("default")
            if key in obj["metadata"]["labels"].values()
        )
    assert len(list(indexed.cache.items())) == len(indexed.cache)
