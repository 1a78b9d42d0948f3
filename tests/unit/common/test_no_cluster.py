"""Every command that needs an API server says so where nothing leads to one."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from inference_common.command import main

if TYPE_CHECKING:
    from pathlib import Path

DOCTOR = "plugin doctor", 2
COMMANDS = [
    pytest.param("plugin serve --socket {dir}/socket", 1, id="plugin serve"),
    pytest.param("plugin explain ns/chat", 2, id="plugin explain"),
    pytest.param(*DOCTOR, id="plugin doctor"),
    pytest.param(
        "prober --pool p --namespace ns --name a --rollout r --address 127.0.0.1:0", 1, id="prober"
    ),
    pytest.param("picker serve --pool ns/p --address 127.0.0.1:0", 2, id="picker serve"),
    pytest.param("analysis history --namespace ns --rollout chat", 2, id="analysis history"),
]


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a kubeconfig, outside of any pod."""
    for name in os.environ:
        if name.startswith(("KUBE", "POD_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    # It would outlast the test, and write for the next ones to a stream that is closed by then.
    monkeypatch.setattr("inference_common.logs.configure_logging", lambda *_, **__: None)
    return tmp_path


def _ended(command: str, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, "argv", ["inference-rollouts", *command.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


@pytest.mark.parametrize(("command", "code"), COMMANDS)
def test_without_a_cluster_a_command_names_the_remedy(
    command: str,
    code: int,
    nowhere: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = _ended(command.format(dir=nowhere), monkeypatch)
    # A text is what Python prints to stderr, with exit status 1.
    said = capsys.readouterr().err + (found if isinstance(found, str) else "")
    assert "no way to the API server by $KUBECONFIG, ~/.kube/config and the pod's" in said
    assert "--kubeconfig" in said
    assert (1 if isinstance(found, str) else found) == code


@pytest.mark.parametrize("text", ["", "{", "[]"], ids=["empty", "no YAML", "a list"])
def test_a_kubeconfig_that_is_none_is_told(
    text: str, nowhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = nowhere / "config"
    path.write_text(text)
    command, code = DOCTOR
    assert _ended(f"{command} --kubeconfig {path}", monkeypatch) == code
    assert f"no way to the API server by {path}: " in capsys.readouterr().err
