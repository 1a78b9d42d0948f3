"""What a server that was killed between two writes has left: found on the objects themselves.

Each object carries the command that it was written for. Where those of one Rollout differ, the
newest was being carried out; a server that starts takes it up, without waiting for the controller's
next call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference_plugin.rollouts import Command
from inference_plugin.shares import Weighting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference_plugin.commanded import Commanded
    from inference_plugin.rollouts import RolloutSpec
    from inference_plugin.shares import Hashes


def interrupted(spec: RolloutSpec, hashes: Hashes, entries: Sequence[Commanded]) -> Command | None:
    """The command that was half carried out; None where all objects say the same.

    None as well where it was about other revisions than the Rollout's present ``hashes``, or
    wished more than their weights: then the controller's next call decides.
    """
    if len({_wish(entry) for entry in entries}) < 2:  # noqa: PLR2004 - one wish is agreement
        return None
    newest = max(entries, key=lambda entry: entry.since)
    present = (hashes.stable, hashes.canary, spec.max_weight)
    if (newest.stable, newest.canary, newest.maximum) != present or newest.beside:
        return None
    return Command(
        spec=spec,
        hashes=hashes,
        weighting=Weighting(desired=newest.desired, maximum=newest.maximum),
    )


def _wish(entry: Commanded) -> tuple[str, str, int, int, str]:
    return (entry.stable, entry.canary, entry.desired, entry.maximum, entry.beside)
