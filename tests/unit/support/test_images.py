"""The images that manifests name, the Dockerfile that builds them, and what the tests start."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Final

import pytest
from packaging.requirements import Requirement

from support.nodeagent import images
from support.repository import ROOT

OURS: Final = "inference-rollouts/"
_STAGE: Final = re.compile(r"^FROM .* AS (?P<name>\S+)$")
_ENTRYPOINT: Final = re.compile(r"^ENTRYPOINT (?P<words>\[.*\])$")


def _dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text()


def built() -> dict[str, tuple[str, ...]]:
    """Image name → entry point, of every stage of the Dockerfile that has one."""
    stage, found = "", {}
    for line in _dockerfile().splitlines():
        if match := _STAGE.match(line):
            stage = match["name"]
        elif match := _ENTRYPOINT.match(line):
            found[OURS + stage] = tuple(json.loads(match["words"]))
    return found


def test_every_image_that_a_manifest_names_is_built() -> None:
    named = {
        images.repository(name)
        for path in (ROOT / "manifests").rglob("*.yaml")
        for name in re.findall(r"image: (\S+)", path.read_text())
    }
    ours = {name for name in named if name.startswith(OURS)}
    assert ours == built().keys()


def test_the_node_agent_starts_an_image_as_the_dockerfile_says() -> None:
    # The plugin server runs beside the controller, not in a pod of the local cluster.
    started = {name: images.ENTRYPOINTS.get(name) for name in built() if name != OURS + "plugin"}
    assert started == {name: words for name, words in built().items() if name != OURS + "plugin"}


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_images_constraints_fix_one_version_of_each_package(python: str) -> None:
    # numpy and others stand in the lock file once for each version of Python.
    (command,) = re.findall(r"^RUN (sed .*) > constraints.txt$", _dockerfile(), re.MULTILINE)
    lines = subprocess.run(  # noqa: S602 - the Dockerfile's own command
        command, shell=True, cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    fixed = [
        each.name
        for each in map(Requirement, lines)
        if each.marker is None or each.marker.evaluate(environment)
    ]
    assert "numpy" in fixed
    assert len(fixed) == len(set(fixed))
