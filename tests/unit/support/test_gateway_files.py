"""The files that Envoy watches, and what its statistics say about them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from support.gateway import samples
from support.gateway.admin import Subscription, parse
from support.gateway.bootstrap import Layout, admin_url, write_bootstrap
from support.gateway.snapshot import Snapshot
from support.gateway.translate import translate
from support.gateway.xds import LINGER_S, XdsFiles, endpoints_stat, routes_stat

if TYPE_CHECKING:
    from pathlib import Path

    from support.gateway.translate import Translation

POOL_A = "pool/inference.networking.k8s.io/demo/a"
POOL_B = "pool/inference.networking.k8s.io/demo/b"


def translation(*weights: int, ready: bool = True) -> Translation:
    """A route to pools a, b, … with these weights, and one pod in pool a."""
    names = "abc"[: len(weights)]
    refs = [samples.pool_ref(name, weight) for name, weight in zip(names, weights, strict=True)]
    return translate(
        samples.snapshot(
            samples.route({"backendRefs": refs}),
            *(samples.pool(name, {"v": name}) for name in names),
            samples.pod("pod", {"v": "a"}, "127.99.0.1", ready=ready),
        )
    )


def inodes(layout: Layout) -> dict[str, int]:
    """A new inode is a rename, which is what Envoy reacts to."""
    return {
        str(path.relative_to(layout.root)): path.stat().st_ino
        for path in layout.root.rglob("*.json")
    }


def clusters(layout: Layout) -> list[str]:
    found = json.loads(layout.clusters.read_text())["resources"]
    return [cluster["name"] for cluster in found]


def write(files: XdsFiles, found: Translation, now: float = 0.0) -> dict[str, str]:
    return files.write_clusters(found, now) | files.write_routes(found)


def changed(before: dict[str, int], after: dict[str, int]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def test_only_what_changed_is_written(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    files = XdsFiles(layout)
    write(files, translation(90, 10))
    first = inodes(layout)
    write(files, translation(90, 10))
    assert inodes(layout) == first
    write(files, translation(50, 50))
    second = inodes(layout)
    assert changed(first, second) == {"rds/demo/gw/8080.json"}
    write(files, translation(50, 50, ready=False))
    assert changed(second, inodes(layout)) == {f"eds/{POOL_A}.json"}


def test_a_restart_of_the_controller_writes_nothing(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    write(XdsFiles(layout), translation(90, 10))
    before = inodes(layout)
    write(XdsFiles(layout), translation(90, 10))
    assert inodes(layout) == before


def test_new_clusters_are_to_be_in_force_before_the_routes(tmp_path: Path) -> None:
    files = XdsFiles(Layout(tmp_path))
    first = files.write_clusters(translation(1), 0.0)
    assert first.keys() == {"cluster_manager.cds", endpoints_stat(POOL_A)}
    assert files.write_clusters(translation(1, 1), 0.0).keys() == {
        "cluster_manager.cds",
        endpoints_stat(POOL_B),
    }
    assert files.write_routes(translation(1, 1)).keys() == {
        "listener_manager.lds",
        routes_stat("demo/gw/8080"),
    }


def test_equal_content_has_an_equal_version(tmp_path: Path) -> None:
    files = XdsFiles(Layout(tmp_path))
    first = write(files, translation(90, 10))
    assert write(files, translation(50, 50)) != first
    again = write(files, translation(90, 10))
    assert again["listener_manager.lds"] == first["listener_manager.lds"]
    assert again[routes_stat("demo/gw/8080")] == first[routes_stat("demo/gw/8080")]


def test_a_cluster_outlives_its_last_route_for_a_while(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    files = XdsFiles(layout)
    write(files, translation(1, 1))
    write(files, translation(1), now=100.0)
    assert clusters(layout) == [POOL_A, POOL_B]
    assert files.next_deadline() == 100.0 + LINGER_S
    write(files, translation(1), now=100.0 + LINGER_S)
    assert clusters(layout) == [POOL_A]
    assert not layout.endpoints(POOL_B).exists()
    assert files.next_deadline() is None


def test_a_cluster_that_comes_back_stays(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    files = XdsFiles(layout)
    write(files, translation(1, 1))
    write(files, translation(1), now=100.0)
    write(files, translation(1, 1), now=110.0)
    write(files, translation(1, 1), now=100.0 + LINGER_S)
    assert clusters(layout) == [POOL_A, POOL_B]
    assert layout.endpoints(POOL_B).exists()


def test_routes_of_a_gateway_that_is_gone_are_removed(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    files = XdsFiles(layout)
    write(files, translation(1))
    assert layout.routes("demo/gw/8080").exists()
    write(files, translate(Snapshot.of(samples.NETWORK, ())))
    assert not layout.routes("demo/gw/8080").exists()


def test_a_bootstrap_says_where_the_admin_interface_is(tmp_path: Path) -> None:
    write_bootstrap(tmp_path, "127.99.0.1", 9901)
    assert admin_url(tmp_path) == "http://127.99.0.1:9901"


def test_a_new_bootstrap_keeps_what_envoy_serves(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    write(XdsFiles(layout), translation(1))
    before = inodes(layout)
    write_bootstrap(tmp_path, "127.99.0.1", 9901)
    assert inodes(layout) == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Lines as Envoy 1.40 prints them.
        pytest.param(
            'cluster.pool/g.example/demo/a.version_text: "e59a"\n'
            "cluster.pool/g.example/demo/a.update_rejected: 0\n"
            "cluster.pool/g.example/demo/a.update_failure: 0\n",
            {"cluster.pool/g.example/demo/a": Subscription(version="e59a")},
            id="taken",
        ),
        pytest.param(
            "listener_manager.lds.update_rejected: 2\nlistener_manager.lds.update_failure: 1\n",
            {"listener_manager.lds": Subscription(refused=3)},
            id="refused",
        ),
        pytest.param("nonsense\n", {}, id="something else"),
    ],
)
def test_statistics_are_read_by_subscription(text: str, expected: dict[str, Any]) -> None:
    assert parse(text) == expected
