"""The bridge's own checks, in Go: forwarding, deadlines, reconnection, logs (*_test.go)."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.toolchain.build import go_command, go_environment

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["test", "./..."], id="tests"),
        pytest.param(["vet", "./..."], id="vet"),
    ],
)
def test_go_finds_nothing_wrong(arguments: list[str]) -> None:
    done = subprocess.run(
        [go_command(), *arguments],
        cwd=REPOSITORY / "plugin/bridge",
        env=go_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_checked_in_go_code_is_what_the_generator_writes() -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "plugin/proto/generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
