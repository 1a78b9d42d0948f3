"""``plugin explain`` of live Rollouts: what it says comes true, and it writes nothing."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import yaml

from inference_common.kube import HTTPROUTE, POD, ROLLOUT, Resource
from support.deployments import hash_addressed, lora_release, release_only
from support.scenario import TIMEOUT_S, weights

if TYPE_CHECKING:
    from support.scenario import Object, Scenario

BASE = Path(__file__).resolve().parents[2] / "manifests" / "base" / "rbac.yaml"
ACCOUNT = Resource("", "v1", "serviceaccounts", "ServiceAccount")
_RBAC = ("rbac.authorization.k8s.io", "v1")
ROLE = Resource(*_RBAC, "roles", "Role")
BINDING = Resource(*_RBAC, "rolebindings", "RoleBinding")
PLUGIN = "/spec/strategy/canary/trafficRouting/plugins/inference-rollouts~1router"


@dataclass(frozen=True, slots=True)
class Reader:
    """A user who may read in one namespace what the server reads, and nothing else."""

    scenario: Scenario
    kubeconfig: Path
    user: str

    @classmethod
    async def create(cls, scenario: Scenario, folder: Path) -> Reader:
        """The reading half of the plugin's own ClusterRole, in the scenario's namespace."""
        role = next(
            each for each in yaml.safe_load_all(BASE.read_text()) if each["kind"] == "ClusterRole"
        )
        rules = [
            rule | {"verbs": [verb for verb in rule["verbs"] if verb in {"get", "list", "watch"}]}
            for rule in role["rules"]
        ]
        named = {"metadata": {"name": "reader"}}
        subject = {"kind": "ServiceAccount", "name": "reader", "namespace": scenario.namespace}
        ref = {"apiGroup": _RBAC[0], "kind": "Role", "name": "reader"}
        await scenario.kube.create(ACCOUNT, named, scenario.namespace)
        reading = [rule for rule in rules if rule["verbs"]]
        await scenario.kube.create(ROLE, named | {"rules": reading}, scenario.namespace)
        binding = named | {"roleRef": ref, "subjects": [subject]}
        await scenario.kube.create(BINDING, binding, scenario.namespace)
        token = await scenario.kube.create(ACCOUNT, {}, scenario.namespace, "reader", "token")
        text = await asyncio.to_thread(Path(scenario.cluster.kubeconfig).read_text)
        config = yaml.safe_load(text)
        config["users"][0]["user"] = {"token": token["status"]["token"]}
        file = folder / "reader.yaml"
        file.write_text(yaml.safe_dump(config))
        return cls(scenario, file, f"system:serviceaccount:{scenario.namespace}:reader")

    async def explain(self, rollout: str, *arguments: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("inference-rollouts")),
            *("plugin", "explain", f"{self.scenario.namespace}/{rollout}"),
            *("--kubeconfig", str(self.kubeconfig), *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def document(self, rollout: str) -> tuple[int, Object]:
        code, out, err = await self.explain(rollout, "--json")
        assert out, err
        found: Object = json.loads(out)
        return code, found


@pytest.fixture
async def reader(scenario: Scenario, tmp_path: Path) -> Reader:
    return await Reader.create(scenario, tmp_path)


def column(found: Object, name: str) -> dict[str, Any]:
    return {each["item"].rpartition("/")[2]: each[name] for each in found["weights"]}


async def test_a_canary_in_place_is_explained_without_a_single_write(
    scenario: Scenario, reader: Reader
) -> None:
    await hash_addressed(scenario)
    await scenario.revise("chat", "2")
    await scenario.until_paused("chat", 10)
    hashes = await scenario.hashes("chat")
    position = scenario.cluster.audit_position()
    code, found = await reader.document("chat")
    assert (code, found["verified"], found["writes"], found["awaited"]) == (0, True, [], [])
    assert (found["desired"], found["source"]) == (10, "step 2 of 4")
    assert {
        each["role"]: (each["pod_template_hash"], each["destination"])
        for each in found["revisions"]
    } == {
        "stable": (hashes["stable"], "InferencePool chat-a"),
        "canary": (hashes["current"], "InferencePool chat-b"),
    }
    expected = {"chat-a": 90, "chat-b": 10}
    assert column(found, "found") == column(found, "commanded") == column(found, "then") == expected
    # Its rights would not let it, but not even a try is in the audit log.
    async with asyncio.timeout(TIMEOUT_S):
        while not (  # noqa: ASYNC110
            asked := [e for e in scenario.cluster.audit(since=position) if e.user == reader.user]
        ):
            await asyncio.sleep(0.1)  # a log can't be watched
    assert {event.verb for event in asked} <= {"get", "list", "watch"}

    code, text, _ = await reader.explain("chat")
    assert code == 0
    assert "in place and verified: nothing to write." in text


async def test_a_share_that_waits_is_told_with_its_reason(
    scenario: Scenario, reader: Reader
) -> None:
    await hash_addressed(scenario)
    await scenario.revise("chat", "2")
    await scenario.until_paused("chat", 10)
    [picker] = (await scenario.kube.list(POD, scenario.namespace, "app=picker"))["items"]
    await scenario.set_ready(picker["metadata"]["name"], ready=False)
    await scenario.argo("promote", "chat")
    # An Event of that reason may be there from the beginning.
    await scenario.until(
        ROLLOUT,
        "chat",
        lambda obj: obj is not None and obj["status"].get("currentStepIndex") == 2,
        what="the step of 50",
    )
    await scenario.until_event("WaitingForPicker")
    code, found = await reader.document("chat")
    assert code == 1
    assert (found["desired"], found["source"]) == (50, "step 3 of 4")
    assert found["writes"] == []
    assert column(found, "found") == column(found, "then") == {"chat-a": 90, "chat-b": 10}
    [(reason, message)] = found["awaited"]
    assert reason == "WaitingForPicker"
    assert "picker" in message


@pytest.mark.alone
async def test_what_would_be_written_is_what_is_written(scenario: Scenario, reader: Reader) -> None:
    """The server is frozen, so that there is time to look at what it has not done yet."""
    await hash_addressed(scenario)
    await scenario.revise("chat", "2")
    await scenario.until_paused("chat", 10)
    pid = scenario.cluster.signal("plugin", signal.SIGSTOP)
    try:
        await scenario.argo("abort", "chat")
        code, found = await reader.document("chat")
        assert code == 1
        assert found["source"] == "the Rollout is aborted: all traffic belongs on stable"
        assert column(found, "then") == {"chat-a": 100, "chat-b": 0}
        [write] = found["writes"]
        assert write["kind"] == "JSON Patch"
        # The API server takes it as it is printed.
        answer = await scenario.kube.patch(
            HTTPROUTE, "chat", write["body"], scenario.namespace, dry_run=True
        )
        assert weights(answer) == {"chat-a": 100, "chat-b": 0}
        assert weights(await scenario.get(HTTPROUTE, "chat")) == {"chat-a": 90, "chat-b": 10}
    finally:
        psutil.Process(pid).send_signal(signal.SIGCONT)
    await scenario.until_weights("chat", {"chat-a": 100, "chat-b": 0})


async def test_targets_of_a_lora_release_are_explained_by_name(
    scenario: Scenario, reader: Reader
) -> None:
    await release_only(scenario, "v1")
    await scenario.revise("travel-helper", lora_release("v2", noop=True))
    await scenario.until_paused("travel-helper", 10)
    code, found = await reader.document("travel-helper")
    assert code == 0
    assert {each["role"]: each["destination"] for each in found["revisions"]} == {
        "stable": "v1",
        "canary": "v2",
    }
    assert column(found, "found") == {"v1": 90, "v2": 10}


async def test_what_can_not_be_explained_says_why(scenario: Scenario, reader: Reader) -> None:
    await release_only(scenario, "v1")
    change = {"inferenceModel": "absent"}
    await scenario.kube.patch(
        ROLLOUT,
        "travel-helper",
        [{"op": "replace", "path": PLUGIN, "value": change}],
        scenario.namespace,
    )
    code, text, _ = await reader.explain("travel-helper")
    assert code == 2
    assert "InferenceModel" in text
    assert "absent" in text
    assert "found in" in text
    await scenario.kube.patch(
        ROLLOUT,
        "travel-helper",
        [{"op": "replace", "path": PLUGIN, "value": {"httpRute": "chat"}}],
        scenario.namespace,
    )
    code, text, _ = await reader.explain("travel-helper")
    assert code == 2
    assert "httpRute: unknown key" in text
    code, _, err = await reader.explain("nobody")
    assert code == 2
    assert "404" in err
