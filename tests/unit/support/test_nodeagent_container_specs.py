"""From a container's spec to what is run: expansion, images, fields, environment, mounts."""

from __future__ import annotations

import string
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.nodeagent.commands import Place, launch_of
from support.nodeagent.environment import (
    ConfigError,
    Contents,
    Reference,
    container_references,
    environment,
)
from support.nodeagent.expansion import expand
from support.nodeagent.fields import FieldError, field, quantity, resource_field
from support.nodeagent.images import UnknownImageError, invocation, is_noop, repository
from support.nodeagent.mounts import Mount, localise

POD: dict[str, Any] = {
    "metadata": {
        "name": "p",
        "namespace": "ns",
        "uid": "u-1",
        "labels": {"app": "web", "tier": "a b"},
        "annotations": {"note": 'say "x"'},
    },
    "spec": {"nodeName": "local-1", "containers": [{"name": "m", "image": "x"}]},
    "status": {
        "podIP": "127.9.1.1",
        "podIPs": [{"ip": "127.9.1.1"}],
        "hostIP": "127.9.0.1",
    },
}
ALLOCATABLE = {"cpu": "64", "memory": "256Gi"}
NAMES = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=8)


# Cases of k8s.io/kubernetes/third_party/forked/golang/expansion/expand_test.go.
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("$(VAR_A)", "A", id="whole"),
        pytest.param("___$(VAR_B)___", "___B___", id="middle"),
        pytest.param("$(VAR_A)$(VAR_B)", "AB", id="two"),
        pytest.param("$$(VAR_A)", "$(VAR_A)", id="escaped"),
        pytest.param("$$$(VAR_A)", "$A", id="escaped-dollar-then-reference"),
        pytest.param("$$$$(VAR_A)", "$$(VAR_A)", id="escaped-twice"),
        pytest.param("$(VAR_DNE)", "$(VAR_DNE)", id="unknown-stays"),
        pytest.param("$VAR_A", "$VAR_A", id="no-parentheses"),
        pytest.param("$(VAR_A", "$(VAR_A", id="never-closed"),
        pytest.param("f000-$(VAR_A)$", "f000-A$", id="dollar-at-the-end"),
        pytest.param("$(EMPTY)", "", id="empty-value"),
    ],
)
def test_references_are_expanded_as_kubernetes_does(text: str, expected: str) -> None:
    assert expand(text, {"VAR_A": "A", "VAR_B": "B", "EMPTY": ""}) == expected


@given(st.text(), st.dictionaries(NAMES, st.text()))
def test_escaping_every_dollar_gives_the_text_back(text: str, variables: dict[str, str]) -> None:
    assert expand(text.replace("$", "$$"), variables) == text


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("inference-rollouts/noop:1", "inference-rollouts/noop"),
        ("noop", "noop"),
        ("registry:5000/a/b:v1", "registry:5000/a/b"),
        ("registry:5000/a/b", "registry:5000/a/b"),
        ("a/b:v1@sha256:0011", "a/b"),
    ],
)
def test_an_image_name_is_freed_from_tag_and_digest(image: str, name: str) -> None:
    assert repository(image) == name


@pytest.mark.parametrize(
    ("container", "command"),
    [
        pytest.param(
            {"image": "inference-rollouts/picker:1", "args": ["--pool", "p"]},
            ("inference-rollouts", "picker", "serve", "--pool", "p"),
            id="args-are-appended",
        ),
        pytest.param(
            {"image": "inference-rollouts/picker:1", "command": ["sh"], "args": ["-c", "x"]},
            ("sh", "-c", "x"),
            id="command-replaces-the-entry-point",
        ),
        pytest.param(
            {"image": "inference-rollouts/simulated-vllm"},
            (sys.executable, "-m", "support.simulated_vllm"),
            id="python-of-this-environment",
        ),
    ],
)
def test_an_image_stands_for_an_argument_list(
    container: dict[str, Any], command: tuple[str, ...]
) -> None:
    found = invocation(container)
    assert (*found.command, *found.args) == command


def test_an_unknown_image_without_command_says_what_to_do() -> None:
    with pytest.raises(UnknownImageError, match=r'"nginx:1" is not known.*give it a command'):
        invocation({"image": "nginx:1"})


def test_a_command_makes_a_process_of_a_noop_image() -> None:
    assert is_noop({"image": "inference-rollouts/noop:2"})
    assert not is_noop({"image": "inference-rollouts/noop:2", "command": ["true"]})


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.name", "p"),
        ("metadata.namespace", "ns"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['absent']", ""),
        ("metadata.annotations['note']", 'say "x"'),
        ("metadata.labels", 'app="web"\ntier="a b"'),
        ("metadata.annotations", 'note="say \\"x\\""'),
        ("spec.nodeName", "local-1"),
        ("spec.serviceAccountName", "default"),
        ("status.podIP", "127.9.1.1"),
        ("status.podIPs", "127.9.1.1"),
        ("status.hostIP", "127.9.0.1"),
    ],
)
def test_a_field_reference_reads_the_pod(path: str, expected: str) -> None:
    assert field(POD, path) == expected


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(FieldError, match=r"spec\.containers"):
        field(POD, "spec.containers")


@pytest.mark.parametrize(
    ("text", "number"),
    [("500m", "0.5"), ("2Gi", str(2 * 2**30)), ("1k", "1000"), ("1e3", "1000"), ("7", "7")],
)
def test_a_quantity_is_a_number(text: str, number: str) -> None:
    assert quantity(text) == quantity(number)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        pytest.param({"resource": "limits.cpu"}, "2", id="rounded-up"),
        pytest.param({"resource": "limits.cpu", "divisor": "1m"}, "1500", id="divisor"),
        pytest.param({"resource": "requests.memory", "divisor": "1Mi"}, "512", id="request"),
        pytest.param({"resource": "requests.cpu", "divisor": "1m"}, "1500", id="limit-is-request"),
        pytest.param({"resource": "limits.memory", "divisor": "1Gi"}, "256", id="node-allocatable"),
    ],
)
def test_a_resource_reference_is_amount_over_divisor(
    reference: dict[str, str], expected: str
) -> None:
    resources = {"limits": {"cpu": "1500m"}, "requests": {"memory": "512Mi"}}
    container = {"name": "m", "resources": resources}
    assert resource_field(POD, container, reference, ALLOCATABLE) == expected


CONTENTS: Contents = {
    Reference("ConfigMap", "cfg"): {"a": b"1", "b": b"2"},
    Reference("Secret", "sec"): {"k": b"s3cret"},
    Reference("ConfigMap", "absent"): None,
}


def test_later_variables_win_and_see_the_earlier_ones() -> None:
    container = {
        "name": "m",
        "envFrom": [{"configMapRef": {"name": "cfg"}, "prefix": "C_"}],
        "env": [
            {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "BOTH", "value": "$(ME)-$(C_a)-$(GIVEN)-$(LATER)"},
            {"name": "C_b", "value": "own"},
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "k"}}},
            {"name": "LATER", "value": "x"},
            {"name": "NONE"},
        ],
    }
    assert environment(POD, container, CONTENTS, {"GIVEN": "g"}, ALLOCATABLE) == {
        "GIVEN": "g",
        "C_a": "1",
        "C_b": "own",
        "ME": "p",
        "BOTH": "p-1-g-$(LATER)",
        "KEY": "s3cret",
        "LATER": "x",
        "NONE": "",
    }


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param(
            {"configMapKeyRef": {"name": "cfg", "key": "z"}}, 'no key "z"; it has a, b', id="key"
        ),
        pytest.param(
            {"configMapKeyRef": {"name": "absent", "key": "z"}},
            'ConfigMap "absent" not found',
            id="object",
        ),
    ],
)
def test_a_missing_reference_holds_the_container_back(source: dict[str, Any], message: str) -> None:
    container = {"name": "m", "env": [{"name": "X", "valueFrom": source}]}
    with pytest.raises(ConfigError, match=message):
        environment(POD, container, CONTENTS, {}, ALLOCATABLE)


def test_a_missing_optional_reference_leaves_the_variable_out() -> None:
    optional = {"name": "absent", "optional": True}
    container = {
        "name": "m",
        "envFrom": [{"configMapRef": optional}],
        "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"key": "z"} | optional}}],
    }
    assert environment(POD, container, CONTENTS, {}, ALLOCATABLE) == {}
    assert container_references(container) == {Reference("ConfigMap", "absent")}


MOUNTS = (
    Mount(volume="etc", path="/etc/app", source=Path("/pods/p/etc")),
    Mount(volume="tmp", path="/tmp", source=Path("/pods/p/tmp")),
    Mount(volume="deep", path="/etc/app/deep", source=Path("/pods/p/deep")),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/etc/app", "/pods/p/etc"),
        ("--config=/etc/app/x.yaml", "--config=/pods/p/etc/x.yaml"),
        ("/etc/app/deep/y", "/pods/p/deep/y"),
        ("/etc/app:/tmp", "/pods/p/etc:/pods/p/tmp"),
        ("cat /tmp; ls '/etc/app'", "cat /pods/p/tmp; ls '/pods/p/etc'"),
        ("/etc/application", "/etc/application"),
        ("/srv/etc/app", "/srv/etc/app"),
        ("./tmp", "./tmp"),
    ],
)
def test_mount_paths_become_real_paths(text: str, expected: str) -> None:
    assert localise(text, MOUNTS) == expected


@given(st.text())
def test_without_mounts_a_text_stays(text: str) -> None:
    assert localise(text, ()) == text


def place(tmp_path: Path, **volumes: Path) -> Place:
    return Place(
        directory=tmp_path,
        volumes=volumes,
        kubeconfig=tmp_path / "kubeconfig",
        services={"KUBERNETES_SERVICE_HOST": "127.9.0.1"},
        allocatable=ALLOCATABLE,
    )


def test_a_container_becomes_a_process_on_the_pods_address(tmp_path: Path) -> None:
    container = {
        "name": "m",
        "image": "inference-rollouts/picker:1",
        "args": ["--address", "$(IP):9002", "--config", "/etc/app/c"],
        "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "volumeMounts": [{"name": "app", "mountPath": "/etc/app/"}],
        "workingDir": "/etc/app",
    }
    app = tmp_path / "volumes" / "app"
    process = launch_of(POD, container, {}, place(tmp_path, app=app)).process
    assert process.argv[3:] == ("--address", "127.9.1.1:9002", "--config", f"{app}/c")
    assert process.cwd == app
    assert process.log == tmp_path / "m.log"
    assert process.env["LOCAL_MOUNT_APP"] == str(app)
    assert process.env["KUBECONFIG"] == str(tmp_path / "kubeconfig")
    assert process.env["KUBERNETES_SERVICE_HOST"] == "127.9.0.1"
    assert process.env["PATH"].startswith(str(Path(sys.executable).parent))


def test_the_agents_own_environment_is_not_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy")
    # With it every start of a Python program would compile its modules anew.
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    container = {"name": "m", "image": "x", "command": ["true"]}
    env = launch_of(POD, container, {}, place(tmp_path)).process.env
    assert not env.keys() & {"HTTP_PROXY", "PYTHONDONTWRITEBYTECODE"}


def test_a_kubeconfig_of_the_container_itself_is_kept(tmp_path: Path) -> None:
    own = [{"name": "KUBECONFIG", "value": "/mine"}]
    container = {"name": "m", "image": "x", "command": ["true"], "env": own}
    assert launch_of(POD, container, {}, place(tmp_path)).process.env["KUBECONFIG"] == "/mine"


def test_a_volume_at_tmp_does_not_move_what_the_node_gives() -> None:
    """A state directory below /tmp is the normal case, and its paths are real already."""
    directory = Path("/tmp/state/pods/x")
    here = Place(
        directory=directory,
        volumes={"scratch": directory / "volumes" / "scratch"},
        kubeconfig=None,
        services={},
        allocatable={},
    )
    container = {
        "name": "m",
        "image": "x",
        "command": ["tool", "$(HOME)/a", "/tmp/b"],
        "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],
    }
    process = launch_of(POD, container, {}, here).process
    scratch = str(directory / "volumes" / "scratch")
    assert process.argv == ("tool", f"{directory}/a", f"{scratch}/b")
    assert process.env["HOME"] == str(directory)


def test_a_command_inside_a_container_is_not_expanded(tmp_path: Path) -> None:
    """Exec probes run what they say (Kubernetes API, ExecAction); mounts are ours to replace."""
    container = {
        "name": "m",
        "image": "x",
        "command": ["true"],
        "volumeMounts": [{"name": "app", "mountPath": "/etc/app"}],
    }
    app = tmp_path / "app"
    inside = launch_of(POD, container, {}, place(tmp_path, app=app)).inside(
        ["cat", "/etc/app/x", "$(HOME)"]
    )
    assert inside.argv == ("cat", f"{app}/x", "$(HOME)")
    assert inside.log == tmp_path / "m.exec.log"
