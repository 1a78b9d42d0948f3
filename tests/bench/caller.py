"""The controller's side of the plugin's socket: a small Go program, as the bridge is one.

A caller in Python would share the machine's cores with the server for as long as the server takes
itself, so that what is measured would be the caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.fleet import plugin_config
from support.toolchain.build import go_command, go_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.fleet import Member

_SOURCE: Final = Path(__file__).resolve().parents[2] / "plugin/bridge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconcile:
    """One reconcile to be made: of which member, due after how many seconds.

    ``changes`` says whether its weight is another one than the member's last.
    """

    member: int
    weight: int
    at: float = 0.0
    verify: bool = True
    changes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """What became of one reconcile, in seconds. ``waited`` is until one of the workers was free."""

    asked: Reconcile
    waited: float
    set_weight: float
    verify_weight: float
    verified: bool
    error: str


class Caller:
    """The program, built."""

    def __init__(self, program: Path, workers: int) -> None:
        """Make at most so many reconciles at once."""
        self._program = program
        self._workers = workers

    async def make(
        self, socket: Path, members: Sequence[Member], reconciles: Sequence[Reconcile]
    ) -> list[Timed]:
        """Make the reconciles, each as soon as it is due and a worker is free."""
        plan = {
            "target": f"unix:{socket}",
            "workers": self._workers,
            "rollouts": [_rollout(member) for member in members],
            "reconciles": [
                {"at": one.at, "rollout": one.member, "weight": one.weight, "verify": one.verify}
                for one in reconciles
            ],
        }
        pipe = subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            self._program, stdin=pipe, stdout=pipe, stderr=pipe
        )
        output, errors = await process.communicate(json.dumps(plan).encode())
        if process.returncode != 0:
            sys.exit(f"bench.caller: the Go program failed: {errors.decode()}")
        return [
            Timed(
                asked=asked,
                waited=max(found["waited"], 0.0),
                set_weight=found["setWeight"],
                verify_weight=found["verifyWeight"],
                verified=found["verified"],
                error=found["error"],
            )
            for asked, found in zip(reconciles, json.loads(output), strict=True)
        ]


@contextlib.contextmanager
def built_caller(workers: int) -> Iterator[Caller]:
    """The program in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="caller-") as folder:
        program = Path(folder) / "caller"
        done = subprocess.run(
            [go_command(), "build", "-o", str(program), "./caller"],
            cwd=_SOURCE,
            env=go_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            sys.exit(f"bench.caller: {_SOURCE}/caller can't be built:\n{done.stdout}{done.stderr}")
        yield Caller(program, workers)


def _rollout(member: Member) -> dict[str, Any]:
    """What the bridge sends of this Rollout (plugin/bridge/translate.go), and its revisions."""
    metadata, status = member.rollout["metadata"], member.rollout["status"]
    return {
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "generation": metadata["generation"],
        "resourceVersion": metadata["resourceVersion"],
        "config": json.dumps(plugin_config(member.rollout)),
        "stable": status["stableRS"],
        "canary": status["currentPodHash"],
    }
