"""Whether another server has been given another command since this one took its last.

With several servers the controller's calls go to any of them, and each keeps the command that it
was given. What is written on the managed objects tells which is the latest: an annotation that has
changed since, to something that this server does not ask for, is another server's. No clocks are
compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inference_common.kube import Resource
    from inference_plugin.commanded import Commanded
    from inference_plugin.rollouts import Command

    Where = tuple[Resource, str, str]


class Supersession:
    """What stood on the objects when the last command was taken."""

    def __init__(self) -> None:
        """No command was taken yet."""
        self._since: dict[Where, float] = {}

    def take(self, entries: Iterable[tuple[Where, Commanded]]) -> None:
        """A command is taken while the objects say this."""
        self._since = {where: entry.since for where, entry in entries}

    def over(self, entries: Iterable[tuple[Where, Commanded]], *wishes: Command) -> bool:
        """Whether an object now says something newer than what was taken, and none of these."""
        return any(
            entry.since != self._since.get(where)
            and (entry.stable, entry.canary, entry.desired, entry.maximum)
            not in {
                (
                    wish.hashes.stable,
                    wish.hashes.canary,
                    wish.weighting.desired,
                    wish.weighting.maximum,
                )
                for wish in wishes
            }
            for where, entry in entries
        )
