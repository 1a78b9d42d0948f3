"""Pods on the node agent, seen through a real API server and real controllers."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from inference_common.kube import EVENT, JOB, POD, SECRET, PatchKind
from inference_common.watching import WatchCache
from support.scenario import TIMEOUT_S, is_ready

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.scenario import Scenario

Object = dict[str, Any]
NOOP = {"name": "m", "image": "inference-rollouts/noop:1"}
FOREVER = ["sh", "-c", "exec sleep 1000"]


def container(script: str = "", **more: Any) -> Object:
    command = ["sh", "-c", script] if script else FOREVER
    return {"name": "m", "image": "any", "command": command, **more}


def pod(name: str, *containers: Object, **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}, "annotations": {"note": "hey"}},
        "spec": {
            "containers": list(containers),
            "terminationGracePeriodSeconds": 5,
            **spec,
        },
    }


async def create(scenario: Scenario, *pods: Object) -> None:
    for one in pods:
        await scenario.kube.create(POD, one, scenario.namespace)


async def until(scenario: Scenario, name: str, true: Callable[[Object], Any], what: str) -> Object:
    return await scenario.until(POD, name, lambda obj: obj is not None and true(obj), what=what)


async def until_ready(scenario: Scenario, name: str) -> Object:
    return await until(scenario, name, is_ready, "ready")


async def until_phase(scenario: Scenario, name: str, phase: str) -> Object:
    return await until(scenario, name, lambda obj: obj["status"]["phase"] == phase, phase)


async def until_gone(scenario: Scenario, name: str) -> None:
    await scenario.until(POD, name, lambda obj: obj is None, what="gone")


async def delete(scenario: Scenario, name: str, grace_s: int | None = None) -> None:
    await scenario.kube.delete(POD, name, scenario.namespace, grace_period_s=grace_s)


def directory(scenario: Scenario, obj: Object) -> Path:
    metadata = obj["metadata"]
    name = f"{metadata['namespace']}_{metadata['name']}_{metadata['uid']}"
    return scenario.cluster.state_dir / "pods" / name


def log(scenario: Scenario, obj: Object, name: str = "m") -> str:
    return (directory(scenario, obj) / f"{name}.log").read_text()


def runs(pid: int | str) -> bool:
    return Path(f"/proc/{pid}").exists()


def first(obj: Object) -> Object:
    found: Object = obj["status"]["containerStatuses"][0]
    return found


async def test_a_noop_pod_costs_three_writes_in_its_life(scenario: Scenario) -> None:
    """Bind, one status, deletion: what makes a hundred of them cheap."""
    position = scenario.cluster.audit_position()
    await create(scenario, pod("a", NOOP))
    ready = await until_ready(scenario, "a")
    assert ready["status"]["podIP"].startswith("127.")
    assert ready["status"]["qosClass"] == "BestEffort"
    await delete(scenario, "a")
    await until_gone(scenario, "a")
    events = await scenario.cluster.audited(
        "node-agent",
        since=position,
        last=lambda event: event.verb == "delete" and event.namespace == scenario.namespace,
    )
    writes = [
        (event.verb, event.resource, event.subresource)
        for event in events
        if event.writes and event.namespace == scenario.namespace
    ]
    assert writes == [
        ("create", "pods", "binding"),
        ("patch", "pods", "status"),
        ("delete", "pods", ""),
    ]


async def test_a_hundred_noop_pods_have_an_address_each(scenario: Scenario) -> None:
    await asyncio.gather(*(create(scenario, pod(f"p{index}", NOOP)) for index in range(100)))
    async with WatchCache(scenario.kube, POD, scenario.namespace) as cache:
        await cache.until(
            lambda c: len(c) == 100 and all(is_ready(one) for one in c.items()), TIMEOUT_S
        )
        assert len({one["status"]["podIP"] for one in cache.items()}) == 100


async def test_a_live_annotation_makes_a_noop_pod_unready_and_ready_again(
    scenario: Scenario,
) -> None:
    await create(scenario, pod("a", NOOP))
    await until_ready(scenario, "a")
    await scenario.set_ready("a", ready=False)
    await scenario.set_ready("a", ready=True)


async def test_a_container_sees_its_pod_its_config_and_its_secrets(scenario: Scenario) -> None:
    await scenario.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "cfg"},
            "data": {"greeting": "hello", "file.txt": "from a file"},
        }
    )
    secret = {"metadata": {"name": "sec"}, "stringData": {"key": "s3cret"}}
    await scenario.kube.create(SECRET, secret, scenario.namespace)
    env = [
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "NOTE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['note']"}}},
        {"name": "WORD", "valueFrom": {"configMapKeyRef": {"name": "cfg", "key": "greeting"}}},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "key"}}},
        {"name": "ALL", "value": "$(IP) $(NODE) $(NOTE) $(WORD) $(KEY)"},
    ]
    main = container(
        "echo $ALL; cat /etc/cfg/file.txt; echo; cat $LOCAL_MOUNT_INFO/labels",
        env=env,
        volumeMounts=[
            {"name": "cfg", "mountPath": "/etc/cfg"},
            {"name": "info", "mountPath": "/etc/info"},
        ],
    )
    labels = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    volumes = [
        {"name": "cfg", "configMap": {"name": "cfg"}},
        {"name": "info", "downwardAPI": {"items": [labels]}},
    ]
    await create(scenario, pod("a", main, volumes=volumes, restartPolicy="Never"))
    done = await until_phase(scenario, "a", "Succeeded")
    ip, node = done["status"]["podIP"], done["spec"]["nodeName"]
    assert log(scenario, done).splitlines() == [
        f"{ip} {node} hey hello s3cret",
        "from a file",
        'app="a"',
    ]


WHO_AM_I = """
import asyncio, json
from inference_common.kube import Kube, Resource

REVIEW = Resource("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", False)

async def main():
    kube = await Kube.connect()
    answer = await kube.create(REVIEW, {"apiVersion": REVIEW.api_version, "kind": REVIEW.kind})
    await kube.close()
    print(json.dumps(answer["status"]["userInfo"]))

asyncio.run(main())
"""


async def test_a_container_speaks_to_the_api_server_as_its_service_account(
    scenario: Scenario,
) -> None:
    """By a token that is bound to the pod, and with the server's certificate verified."""
    main = container() | {"command": ["python", "-c", WHO_AM_I]}
    await create(scenario, pod("a", main, restartPolicy="Never"))
    done = await until_phase(scenario, "a", "Succeeded")
    user = json.loads(log(scenario, done))
    assert user["username"] == f"system:serviceaccount:{scenario.namespace}:default"
    assert user["extra"]["authentication.kubernetes.io/pod-uid"] == [done["metadata"]["uid"]]


async def test_credentials_of_a_deleted_pod_are_removed_and_its_log_stays(
    scenario: Scenario,
) -> None:
    await create(scenario, pod("a", container("echo here; exec sleep 1000")))
    running = await until_ready(scenario, "a")
    place = directory(scenario, running)
    assert list(place.glob("volumes/*/token"))
    await delete(scenario, "a")
    await until_gone(scenario, "a")
    assert not list(place.glob("volumes/*"))
    assert not (place / "kubeconfig").exists()
    assert log(scenario, running) == "here\n"


async def test_a_missing_config_map_is_reported_and_awaited(scenario: Scenario) -> None:
    env = [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "k"}}}]
    await create(scenario, pod("a", container(env=env)))
    held = await until(
        scenario,
        "a",
        lambda obj: (
            obj["status"].get("containerStatuses")
            and first(obj)["state"].get("waiting", {}).get("reason") == "CreateContainerConfigError"
        ),
        "held back",
    )
    assert 'ConfigMap "late" not found' in first(held)["state"]["waiting"]["message"]
    await scenario.until_event("Failed", 'ConfigMap "late" not found')
    late = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}}
    await scenario.apply(late | {"data": {"k": "v"}})
    await until_ready(scenario, "a")


async def test_a_missing_volume_is_reported_and_awaited(scenario: Scenario) -> None:
    main = container("cat /etc/late/k", volumeMounts=[{"name": "v", "mountPath": "/etc/late"}])
    volumes = [{"name": "v", "configMap": {"name": "late"}}]
    await create(scenario, pod("a", main, volumes=volumes, restartPolicy="Never"))
    await scenario.until_event("FailedMount", 'ConfigMap "late" not found')
    waiting = await until(
        scenario, "a", lambda obj: obj["status"].get("containerStatuses"), "a first status"
    )
    assert first(waiting)["state"]["waiting"]["reason"] == "ContainerCreating"
    late = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}}
    await scenario.apply(late | {"data": {"k": "v"}})
    assert log(scenario, await until_phase(scenario, "a", "Succeeded")) == "v"


async def test_an_unknown_image_says_what_to_do(scenario: Scenario) -> None:
    await create(scenario, pod("a", {"name": "m", "image": "nginx:1"}))
    event = await scenario.until_event("Failed", "nginx:1")
    assert "give it a command" in event["message"]
    await delete(scenario, "a")
    await until_gone(scenario, "a")


async def test_a_job_succeeds_by_its_exit_code(scenario: Scenario) -> None:
    job = {
        "metadata": {"name": "j"},
        "spec": {
            "backoffLimit": 0,
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "initContainers": [container("echo first") | {"name": "i"}],
                    "containers": [container("exit 0")],
                }
            },
        },
    }
    await scenario.kube.create(JOB, job, scenario.namespace)
    done = await scenario.until(
        JOB, "j", lambda obj: obj is not None and obj["status"].get("succeeded") == 1
    )
    assert done["status"]["uncountedTerminatedPods"] == {}, "the tracking finalizer is gone"


async def test_a_job_fails_with_the_exit_code_of_its_pod(scenario: Scenario) -> None:
    template = {"spec": {"restartPolicy": "Never", "containers": [container("exit 42")]}}
    job = {"metadata": {"name": "j"}, "spec": {"backoffLimit": 0, "template": template}}
    await scenario.kube.create(JOB, job, scenario.namespace)
    await scenario.until(JOB, "j", lambda obj: obj is not None and obj["status"].get("failed") == 1)
    pods = (await scenario.kube.list(POD, scenario.namespace))["items"]
    assert [first(one)["state"]["terminated"]["exitCode"] for one in pods] == [42]


async def test_a_failing_container_is_restarted_and_counted(scenario: Scenario) -> None:
    await create(scenario, pod("a", container("exit 3")))
    crashed = await until(
        scenario,
        "a",
        lambda obj: (
            first(obj)["restartCount"] >= 1
            and first(obj)["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff"
            if obj["status"].get("containerStatuses")
            else False
        ),
        "a crash loop",
    )
    assert first(crashed)["lastState"]["terminated"]["exitCode"] == 3
    await scenario.until_event("BackOff")


async def test_a_sidecar_starts_first_and_ends_with_the_main_container(scenario: Scenario) -> None:
    sidecar = container("touch $LOCAL_MOUNT_D/up; exec sleep 1000") | {
        "name": "s",
        "restartPolicy": "Always",
        "startupProbe": {
            "exec": {"command": ["test", "-e", "/d/up"]},
            "periodSeconds": 1,
            "timeoutSeconds": 10,
            "failureThreshold": 100,
        },
        "volumeMounts": [{"name": "d", "mountPath": "/d"}],
    }
    main = container("test -e /d/up && echo up", volumeMounts=[{"name": "d", "mountPath": "/d"}])
    spec = {
        "initContainers": [sidecar],
        "volumes": [{"name": "d", "emptyDir": {}}],
        "restartPolicy": "Never",
    }
    await create(scenario, pod("a", main, **spec))
    done = await until_phase(scenario, "a", "Succeeded")
    assert log(scenario, done) == "up\n"
    await until(
        scenario,
        "a",
        lambda obj: "terminated" in obj["status"]["initContainerStatuses"][0]["state"],
        "the sidecar's end",
    )


async def test_a_pod_beyond_its_deadline_fails(scenario: Scenario) -> None:
    await create(scenario, pod("a", container(), activeDeadlineSeconds=1))
    failed = await until_phase(scenario, "a", "Failed")
    assert failed["status"]["reason"] == "DeadlineExceeded"
    ended = await until(
        scenario, "a", lambda obj: "terminated" in first(obj)["state"], "the container's end"
    )
    assert first(ended)["state"]["terminated"]["exitCode"] == 128 + 15


async def test_a_deleted_pod_is_unready_at_once_and_ends_by_itself(scenario: Scenario) -> None:
    script = "trap 'echo bye; exit 0' TERM; touch $HOME/up; while :; do sleep 0.05; done"
    # The hook lasts until the pod has been seen: a status is written when there is time for it.
    hook = "echo hook > $HOME/hook; until test -e $HOME/seen; do sleep 0.05; done"
    main = container(
        script,
        lifecycle={"preStop": {"exec": {"command": ["sh", "-c", hook]}}},
        readinessProbe={
            "exec": {"command": ["sh", "-c", "test -e $HOME/up"]},
            "periodSeconds": 1,
            "timeoutSeconds": 10,
        },
    )
    await create(scenario, pod("a", main, terminationGracePeriodSeconds=300))
    running = await until_ready(scenario, "a")
    async with WatchCache(scenario.kube, POD, scenario.namespace) as cache:
        await cache.synced()
        seen: list[tuple[bool, str]] = []
        cache.subscribe(
            lambda _, obj: seen.append((is_ready(obj), next(iter(first(obj)["state"]))))
        )
        await delete(scenario, "a")
        await cache.until(lambda _: (False, "running") in seen, TIMEOUT_S)
        (directory(scenario, running) / "seen").touch()
        await cache.until(lambda c: not len(c), TIMEOUT_S)
    assert seen[-1] == (False, "terminated")
    assert log(scenario, running) == "bye\n"
    assert (directory(scenario, running) / "hook").read_text() == "hook\n"


async def test_a_force_deleted_pod_is_killed(scenario: Scenario) -> None:
    script = "trap '' TERM; echo $$ > $HOME/pid; while :; do sleep 0.05; done"
    await create(scenario, pod("a", container(script), terminationGracePeriodSeconds=300))
    running = await until_ready(scenario, "a")
    pid_file = directory(scenario, running) / "pid"
    async with asyncio.timeout(TIMEOUT_S):
        while not (pid_file.exists() and pid_file.read_text()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        pid = pid_file.read_text().strip()
        await delete(scenario, "a", grace_s=0)
        while runs(pid):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_readiness_gate_and_its_owners_condition_are_respected(
    scenario: Scenario,
) -> None:
    gate = "example.com/gate"
    await create(scenario, pod("a", NOOP, readinessGates=[{"conditionType": gate}]))
    await until(
        scenario,
        "a",
        lambda obj: conditions(obj).get("ContainersReady") == "True",
        "ContainersReady",
    )
    assert conditions(await scenario.get(POD, "a"))["Ready"] == "False"
    body = {"status": {"conditions": [{"type": gate, "status": "True"}]}}
    await scenario.kube.patch(
        POD, "a", body, scenario.namespace, kind=PatchKind.STRATEGIC, subresource="status"
    )
    assert conditions(await until_ready(scenario, "a"))[gate] == "True"


async def test_a_pod_that_fits_nowhere_waits_and_can_be_deleted(scenario: Scenario) -> None:
    await create(scenario, pod("a", NOOP, nodeSelector={"no": "where"}), pod("b", NOOP))
    await until_ready(scenario, "b")
    assert "nodeName" not in (await scenario.get(POD, "a"))["spec"]
    await delete(scenario, "a")
    await until_gone(scenario, "a")


@pytest.mark.parametrize("kind", ["httpGet", "tcpSocket"])
async def test_a_server_is_ready_when_its_probe_succeeds(scenario: Scenario, kind: str) -> None:
    env = [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    command = ["python", "-m", "http.server", "8000", "--bind", "$(POD_IP)"]
    probe = {kind: {"port": "web"}, "periodSeconds": 1, "failureThreshold": 30}
    main = container(env=env, readinessProbe=probe) | {
        "command": command,
        "ports": [{"name": "web", "containerPort": 8000}],
    }
    await create(scenario, pod("a", main), pod("b", main))
    addresses = {(await until_ready(scenario, name))["status"]["podIP"] for name in "ab"}
    assert len(addresses) == 2, "the same port, on an address of its own"


def conditions(obj: Object) -> dict[str, str]:
    return {one["type"]: one["status"] for one in obj["status"].get("conditions", [])}


async def test_events_are_not_repeated_at_every_probe(scenario: Scenario) -> None:
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 3}
    liveness = probe | {"terminationGracePeriodSeconds": 1}
    await create(scenario, pod("a", container(livenessProbe=liveness)))
    await scenario.until_event("Killing", "failed liveness probe")
    events = (await scenario.kube.list(EVENT, scenario.namespace))["items"]
    at = {
        reason: sorted(
            datetime.fromisoformat(one["lastTimestamp"])
            for one in events
            if one["reason"] == reason
        )
        for reason in ("Unhealthy", "Killing")
    }
    # Three failed probes, told once in thirty seconds.
    seconds = (at["Killing"][0] - at["Unhealthy"][0]).total_seconds()
    assert len(at["Unhealthy"]) <= 1 + seconds // 30
