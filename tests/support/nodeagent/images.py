"""What an image name stands for on a machine without images: an argument list."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Final

READY_ANNOTATION: Final = "local.inference-rollouts.io/ready"
"""On a live pod: ``"false"`` makes its no-op containers unready, anything else ready."""

NOOP: Final = "inference-rollouts/noop"
"""An image that runs no process; such a container obeys no probes and never fails."""

POD_ADDRESS: Final = "POD_IP"
"""Variable that holds the pod's own address, set before the container's own env."""

_PYTHON: Final = sys.executable
_SIMULATED_VLLM: Final = (_PYTHON, "-m", "support.simulated_vllm")
ENTRYPOINTS: Final[dict[str, tuple[str, ...]]] = {
    "inference-rollouts/simulated-vllm": _SIMULATED_VLLM,
    # So that what a user would apply runs here as it is.
    "vllm/vllm-openai": (*_SIMULATED_VLLM, "--host", f"$({POD_ADDRESS})"),
    "inference-rollouts/picker": ("inference-rollouts", "picker", "serve"),
    "inference-rollouts/prober": ("inference-rollouts", "prober"),
    "inference-rollouts/analysis": ("inference-rollouts", "analysis"),
}


class UnknownImageError(Exception):
    """An image that is not in the table, in a container without ``command``."""

    def __init__(self, image: str) -> None:
        """The message names the image and both remedies."""
        known = ", ".join(sorted({NOOP, *ENTRYPOINTS}))
        super().__init__(
            f'image "{image}" is not known to this node and the container has no command; '
            f"give it a command that exists on this machine, or use one of: {known}"
        )


def repository(image: str) -> str:
    """Name of an image without tag and digest.

    A colon before the last slash belongs to a registry's port and stays.
    """
    name = image.split("@", 1)[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.split(":", 1)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """Entry point and arguments of a container, before expansion."""

    command: tuple[str, ...]
    args: tuple[str, ...]


def is_noop(container: dict[str, Any]) -> bool:
    """Whether the container runs no process: the no-op image, and no command over it."""
    return repository(container["image"]) == NOOP and not container.get("command")


def invocation(container: dict[str, Any]) -> Invocation:
    """What a container runs: its command, else the image's entry point; then its args.

    Raises UnknownImageError when there is neither.
    """
    command = tuple(container.get("command") or ENTRYPOINTS.get(repository(container["image"]), ()))
    if not command:
        raise UnknownImageError(container["image"])
    return Invocation(command=command, args=tuple(container.get("args") or ()))
