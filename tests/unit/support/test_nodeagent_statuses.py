"""Containers' states, and the pod status that follows from them."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.nodeagent.containers import (
    ContainerRecord,
    backoff_s,
    exit_code_of,
    new_record,
    restart_policy,
    restarts_after,
)
from support.nodeagent.moments import moment_of, text_of
from support.nodeagent.phases import PodFacts
from support.nodeagent.recovery import restored_records
from support.nodeagent.statuses import pod_status

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
LATER = NOW + dt.timedelta(seconds=10)
READY_ANNOTATION = "local.inference-rollouts.io/ready"


def container(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": "busybox", "command": ["x"], **more}


def pod(*names: str, policy: str = "Always", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": 3},
        "spec": {
            "containers": [container(name) for name in names],
            "restartPolicy": policy,
            **spec,
        },
        "status": {},
    }


def waiting(name: str) -> ContainerRecord:
    return new_record(container(name), "ContainerCreating")


def running(name: str, *, ready: bool = True) -> ContainerRecord:
    return waiting(name).runs(NOW, started=True, ready=ready)


def ended(name: str, code: int) -> ContainerRecord:
    return running(name).ends(code, LATER)


def crashing(name: str, code: int = 1) -> ContainerRecord:
    return ended(name, code).waits("CrashLoopBackOff")


def facts(*records: ContainerRecord, **more: Any) -> PodFacts:
    return PodFacts(
        records={one.name: one for one in records},
        pod_ip="127.9.1.1",
        host_ip="127.9.0.1",
        started_at=NOW,
        **more,
    )


def conditions(status: dict[str, Any]) -> dict[str, str]:
    return {one["type"]: one["status"] for one in status["conditions"]}


@pytest.mark.parametrize(
    ("policy", "records", "phase"),
    [
        pytest.param("Always", [waiting("a")], "Pending", id="not-started"),
        pytest.param("Always", [running("a"), waiting("b")], "Running", id="one-of-two-runs"),
        pytest.param("Always", [ended("a", 0)], "Running", id="restarts-after-success"),
        pytest.param("Always", [crashing("a")], "Running", id="crash-loop"),
        pytest.param("OnFailure", [ended("a", 1)], "Running", id="restarts-after-failure"),
        pytest.param("OnFailure", [ended("a", 0)], "Succeeded", id="on-failure-success"),
        pytest.param("Never", [ended("a", 0), ended("b", 0)], "Succeeded", id="all-succeeded"),
        pytest.param("Never", [ended("a", 0), ended("b", 2)], "Failed", id="one-failed"),
        pytest.param("Never", [running("a"), ended("b", 2)], "Running", id="one-still-runs"),
    ],
)
def test_the_phase_follows_from_the_containers(
    policy: str, records: list[ContainerRecord], phase: str
) -> None:
    given_pod = pod(*(one.name for one in records), policy=policy)
    assert pod_status(given_pod, facts(*records), {}, NOW)["phase"] == phase


@pytest.mark.parametrize(
    ("policy", "init", "phase", "initialised"),
    [
        pytest.param("Always", running("i"), "Pending", "False", id="runs"),
        pytest.param("Always", ended("i", 1), "Pending", "False", id="failed-and-retried"),
        pytest.param("Never", ended("i", 1), "Failed", "False", id="failed-for-good"),
        pytest.param("Always", ended("i", 0), "Running", "True", id="succeeded"),
    ],
)
def test_an_init_container_comes_first(
    policy: str, init: ContainerRecord, phase: str, initialised: str
) -> None:
    main = running("a") if phase == "Running" else waiting("a")
    given_pod = pod("a", policy=policy, initContainers=[container("i")])
    status = pod_status(given_pod, facts(init, main), {}, NOW)
    assert status["phase"] == phase
    assert conditions(status)["Initialized"] == initialised


def test_a_sidecar_counts_for_readiness_and_not_for_the_phase() -> None:
    sidecar = container("s", restartPolicy="Always")
    given_pod = pod("a", policy="Never", initContainers=[sidecar])
    unready = pod_status(given_pod, facts(running("s", ready=False), running("a")), {}, NOW)
    assert (unready["phase"], conditions(unready)["Ready"]) == ("Running", "False")
    assert unready["conditions"][2]["message"] == "containers with unready status: [s]"
    done = pod_status(given_pod, facts(running("s"), ended("a", 0)), {}, NOW)
    assert done["phase"] == "Succeeded"


def test_a_pod_is_ready_when_all_its_containers_are() -> None:
    half = pod_status(pod("a", "b"), facts(running("a"), running("b", ready=False)), {}, NOW)
    assert conditions(half)["Ready"] == conditions(half)["ContainersReady"] == "False"
    whole = pod_status(pod("a", "b"), facts(running("a"), running("b")), {}, NOW)
    assert set(conditions(whole).values()) == {"True"}


def test_nothing_is_ready_in_a_pod_that_is_being_deleted() -> None:
    status = pod_status(pod("a"), facts(running("a"), terminating=True), {}, NOW)
    assert conditions(status)["Ready"] == "False"
    assert status["containerStatuses"][0]["ready"] is False
    assert status["phase"] == "Running"


@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (143, "Failed")])
def test_a_deleted_pod_ends_in_a_final_phase(code: int, phase: str) -> None:
    status = pod_status(pod("a"), facts(ended("a", code), terminating=True), {}, NOW)
    assert status["phase"] == phase


def test_a_pod_beyond_its_deadline_failed() -> None:
    failure = ("DeadlineExceeded", "too long")
    status = pod_status(pod("a"), facts(ended("a", 137), failure=failure), {}, NOW)
    assert (status["phase"], status["reason"]) == ("Failed", "DeadlineExceeded")


@pytest.mark.parametrize(("value", "ready"), [("false", False), ("true", True), (None, True)])
def test_the_live_annotation_decides_over_a_noop_container(
    value: str | None, *, ready: bool
) -> None:
    given_pod = pod("a")
    given_pod["spec"]["containers"] = [{"name": "a", "image": "inference-rollouts/noop:1"}]
    given_pod["metadata"]["annotations"] = {} if value is None else {READY_ANNOTATION: value}
    record = new_record(given_pod["spec"]["containers"][0], "x").runs(NOW, started=True, ready=True)
    status = pod_status(given_pod, facts(record), {}, NOW)
    assert status["containerStatuses"][0]["ready"] is ready


def test_the_annotation_means_nothing_to_a_process() -> None:
    given_pod = pod("a")
    given_pod["metadata"]["annotations"] = {READY_ANNOTATION: "false"}
    assert conditions(pod_status(given_pod, facts(running("a")), {}, NOW))["Ready"] == "True"


def test_a_readiness_gate_is_waited_for() -> None:
    given_pod = pod("a", readinessGates=[{"conditionType": "example.com/gate"}])
    closed = pod_status(given_pod, facts(running("a")), {}, NOW)
    assert conditions(closed)["ContainersReady"] == "True"
    assert conditions(closed)["Ready"] == "False"
    gate = {"conditions": [{"type": "example.com/gate", "status": "True"}]}
    opened = pod_status(given_pod, facts(running("a")), gate, NOW)
    assert conditions(opened)["Ready"] == "True"
    assert "example.com/gate" not in conditions(opened), "written by its owner only"


def test_a_condition_keeps_its_time_until_it_turns() -> None:
    first = pod_status(pod("a"), facts(running("a", ready=False)), {}, NOW)
    second = pod_status(pod("a"), facts(running("a")), first, LATER)
    times = {one["type"]: one["lastTransitionTime"] for one in second["conditions"]}
    assert times["Ready"] == text_of(LATER)
    assert times["Initialized"] == text_of(NOW)


def test_an_unchanged_pod_has_an_equal_status_later() -> None:
    first = pod_status(pod("a"), facts(running("a")), {}, NOW)
    assert pod_status(pod("a"), facts(running("a")), first, LATER) == first


def test_the_observed_generation_is_the_pods() -> None:
    status = pod_status(pod("a"), facts(running("a")), {}, NOW)
    assert status["observedGeneration"] == 3
    assert {one["observedGeneration"] for one in status["conditions"]} == {3}


def test_a_restart_counts_and_remembers_how_it_ended() -> None:
    again = crashing("a", 3).runs(LATER, started=True, ready=True)
    status = pod_status(pod("a"), facts(again), {}, LATER)["containerStatuses"][0]
    assert status["restartCount"] == 1
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert status["state"] == {"running": {"startedAt": text_of(LATER)}}
    assert status["containerID"] == "process://a/1"


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [
        ("Always", 0, True),
        ("Always", 1, True),
        ("OnFailure", 0, False),
        ("OnFailure", 1, True),
        ("Never", 0, False),
        ("Never", 1, False),
    ],
)
def test_the_policy_decides_over_a_restart(policy: str, code: int, *, again: bool) -> None:
    assert restarts_after(policy, code) is again


@pytest.mark.parametrize(
    ("of_pod", "of_container", "init", "expected"),
    [
        ("Always", None, False, "Always"),
        ("Always", None, True, "OnFailure"),
        ("Never", None, True, "Never"),
        ("Never", "Always", True, "Always"),
    ],
)
def test_init_containers_have_a_policy_of_their_own(
    of_pod: str, of_container: str | None, expected: str, *, init: bool
) -> None:
    one = container("c") | ({"restartPolicy": of_container} if of_container else {})
    assert restart_policy(pod(policy=of_pod), one, init=init) == expected


def test_the_back_off_doubles_to_five_minutes_and_starts_over_after_a_long_run() -> None:
    """Kubernetes documentation, "Pod lifecycle": 10 s, 20 s, 40 s ... 300 s, reset after 10 min."""
    delays: list[float] = []
    previous: float | None = None
    for _ in range(8):
        previous = backoff_s(previous, ran_s=0.1)
        delays.append(previous)
    assert delays == [0, 10, 20, 40, 80, 160, 300, 300]
    assert backoff_s(300, ran_s=600) == 0


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (7, 7), (-9, 137), (-15, 143)])
def test_a_signal_is_an_exit_code_above_128(code: int, expected: int) -> None:
    assert exit_code_of(code) == expected


@given(st.datetimes(timezones=st.just(dt.UTC), min_value=dt.datetime(2000, 1, 1)))  # noqa: DTZ001
def test_a_moment_survives_being_written(moment: dt.datetime) -> None:
    assert moment_of(text_of(moment)) == moment.replace(microsecond=0)


def found_after_restart(status: dict[str, Any], **more: Any) -> ContainerRecord:
    given_pod = pod("a") | {"status": {"containerStatuses": [{"name": "a", **status}]}}
    given_pod["spec"]["containers"][0] |= more
    return restored_records(given_pod)["a"]


def test_what_ran_under_an_earlier_agent_is_lost() -> None:
    state = {"state": {"running": {"startedAt": text_of(NOW)}}, "restartCount": 2}
    record = found_after_restart(state)
    status = pod_status(pod("a"), facts(record), {}, NOW)["containerStatuses"][0]
    assert status["state"]["terminated"] | {"finishedAt": ""} == {
        "exitCode": 255,
        "reason": "Unknown",
        "message": "the node agent was restarted",
        "startedAt": text_of(NOW),
        "finishedAt": "",
        "containerID": "process://a/2",
    }
    assert record.runs(LATER, started=True, ready=True).restarts == 3


def test_a_noop_container_outlives_the_agent() -> None:
    state = {"state": {"running": {"startedAt": text_of(NOW)}}, "restartCount": 0}
    record = found_after_restart(state, image="inference-rollouts/noop:1", command=None)
    assert record.ready
    assert record.restarts == 0


def test_a_finished_container_stays_finished() -> None:
    over = {"exitCode": 4, "reason": "Error", "startedAt": text_of(NOW), "finishedAt": text_of(NOW)}
    record = found_after_restart({"state": {"terminated": over}})
    assert pod_status(pod("a", policy="Never"), facts(record), {}, NOW)["phase"] == "Failed"
