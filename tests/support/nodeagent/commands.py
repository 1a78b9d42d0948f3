"""From a container's spec to the process that stands for it."""

from __future__ import annotations

import dataclasses
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from support.cluster.layout import RUN_VARIABLE
from support.nodeagent.environment import Contents, environment
from support.nodeagent.expansion import expand_all
from support.nodeagent.images import POD_ADDRESS, invocation
from support.nodeagent.mounts import Mount, localise, mount_variables, mounts_of
from support.nodeagent.processes import ProcessSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TESTS: Final = Path(__file__).resolve().parents[2]
"""The folder that ``support`` is imported from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a pod lives on this machine.

    ``volumes`` says where each volume of the pod is; ``kubeconfig`` is a file that uses the pod's
    own token, None where the pod mounts no token.
    """

    directory: Path
    volumes: Mapping[str, Path]
    kubeconfig: Path | None
    services: Mapping[str, str]
    allocatable: Mapping[str, str]

    def log(self, container: str) -> Path:
        """The container's log file."""
        return self.directory / f"{container}.log"


def image_variables(pod: Mapping[str, Any], place: Place) -> dict[str, str]:
    """What an image and the kubelet would set before the container's own env.

    The node agent's environment is not passed on: a proxy or a kubeconfig of the developer's
    shell must not reach a pod. Python programs find this project's packages and the test support.
    """
    programs = os.path.dirname(sys.executable)  # noqa: PTH120 - resolve() would leave the venv
    variables = {
        "PATH": f"{programs}:{_SYSTEM_PATH}",
        "HOME": str(place.directory),
        "TMPDIR": str(place.directory),
        "LANG": "C.UTF-8",
        # Pods share the host's network: an image that would bind every address binds the pod's.
        POD_ADDRESS: pod.get("status", {}).get("podIP", ""),
        "HOSTNAME": pod["spec"].get("hostname") or pod["metadata"]["name"],
        "PYTHONPATH": str(_TESTS),
        "PYTHONUNBUFFERED": "1",
        **place.services,
    }
    if (run := os.environ.get(RUN_VARIABLE)) is not None:
        # The cluster's guardian knows its processes by it.
        variables[RUN_VARIABLE] = run
    if place.kubeconfig is not None:
        variables["KUBECONFIG"] = str(place.kubeconfig)
    return variables


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """The process of a container, and what is needed to run another one beside it."""

    process: ProcessSpec
    mounts: tuple[Mount, ...]

    def inside(self, command: Iterable[str]) -> ProcessSpec:
        """A command that a probe or hook runs in the container; it is not expanded (API rule)."""
        argv = tuple(localise(one, self.mounts) for one in command)
        log = self.process.log.with_suffix(".exec.log")
        return dataclasses.replace(self.process, argv=argv, log=log)


def launch_of(
    pod: Mapping[str, Any], container: Mapping[str, Any], contents: Contents, place: Place
) -> Launch:
    """The process of a container: expanded, with mount paths replaced by real ones.

    Raises UnknownImageError, ConfigError or FieldError.
    """
    called = invocation(dict(container))
    given = image_variables(pod, place)
    plain = environment(pod, container, contents, given, place.allocatable)
    mounts = mounts_of(container, place.volumes, plain)

    def real(text: str) -> str:
        return localise(text, mounts)

    variables = environment(pod, container, contents, given, place.allocatable, real)
    texts = (*called.command, *called.args)
    directory = real(container.get("workingDir") or "")
    process = ProcessSpec(
        argv=expand_all(map(real, texts), variables),
        env=mount_variables(mounts) | variables,
        cwd=Path(directory) if directory else place.directory,
        log=place.log(container["name"]),
    )
    return Launch(process=process, mounts=mounts)
