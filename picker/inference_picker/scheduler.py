"""The scheduler as a whole: state, profile and what is learned, behind two calls.

`choose` ranks the endpoints for a request, `take_off` counts it for the first. Both happen in one
step of the event loop; that is what keeps a burst from landing on one pod. The simulation runs
this very class.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Final

from inference_picker.board import Board
from inference_picker.ejection import Ejector
from inference_picker.estimates import Estimates
from inference_picker.prefixes import PrefixIndex
from inference_picker.profiles import default_profile
from inference_picker.prompts import Prompt
from inference_picker.ranking import SchedulingRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inference_picker.board import Flight
    from inference_picker.ejection import Ejected, EjectionRules
    from inference_picker.pool import Endpoint, PoolSnapshot
    from inference_picker.ranking import Profile, Ranking

_FULL: Final = 0.98
"""Share of the KV cache from which on an endpoint has no room."""
_MOST_OUTPUT: Final = 2.0
"""A client's max_tokens is believed up to so many times the usual answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request as the gateway tells it, with its prompt read."""

    target: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    subset: tuple[str, ...] | None = None
    among: tuple[Endpoint, ...] | None = None
    """The only endpoints that may be ranked, where the request belongs to some of them."""
    prompt: Prompt = field(default_factory=Prompt)
    wanted: int = 1
    explain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A ranking, and what counting the request for its first endpoint takes."""

    ranking: Ranking
    uncached_tokens: float = 0.0
    held_tokens: float = 0.0
    blocks: tuple[int, ...] = ()


class Scheduler:
    """One pool's scheduler. Times are seconds of one monotonic clock."""

    def __init__(
        self,
        profile: Profile | None = None,
        *,
        index: PrefixIndex | None = None,
        random: Random | None = None,
        rules: EjectionRules | None = None,
    ) -> None:
        """Start without endpoints; ``random`` is drawn from by the plugins that draw."""
        self.profile = profile or default_profile()
        self.estimates = Estimates()
        self.index = PrefixIndex() if index is None else index
        self.board = Board(self.index, self.estimates)
        self.ejector = Ejector(rules)
        self._random = random or Random()  # noqa: S311 - nothing secret is drawn
        self._turn = 0

    def choose(self, snapshot: PoolSnapshot, question: Question, *, at: float) -> Choice:
        """Rank the endpoints of the snapshot; nothing is counted yet."""
        board, estimates, prompt = self.board, self.estimates, question.prompt
        self.sync(snapshot, at=at)
        tokens = round(prompt.size / estimates.bytes_per_token)
        output = estimates.output_tokens
        if prompt.max_output_tokens is not None:
            output = min(float(prompt.max_output_tokens), _MOST_OUTPUT * output)
        pods = board.pods(prompt.blocks, at=at)
        self._turn += 1
        ranking = self.profile.rank(
            SchedulingRequest(
                target=question.target,
                headers=question.headers,
                subset=question.subset,
                among=question.among,
                prompt_tokens=tokens,
                output_tokens=round(output),
                usual_tokens=estimates.prompt_tokens,
                answer_tokens=estimates.answer_s * estimates.prefill_rate,
                blocks=prompt.blocks,
                turn=self._turn - 1,
                random=self._random,
                wanted=question.wanted,
            ),
            pods,
            explain=question.explain,
        )
        if not ranking.rows:
            return Choice(ranking=ranking)
        uncached = max(0.0, tokens - float(pods.cached_tokens[ranking.rows[0]]))
        return Choice(
            ranking=ranking,
            uncached_tokens=uncached,
            # Blocks of a cached prefix are held already, once for all who share it.
            held_tokens=uncached + output,
            blocks=prompt.blocks,
        )

    def succeeded(self, address: str) -> None:
        """An endpoint answered well."""
        self.ejector.succeeded(address)

    def failed(self, address: str, *, at: float, reason: str) -> Ejected | None:
        """An endpoint failed; the ejection that this leads to, if it does."""
        ejected = self.ejector.failed(address, at=at, reason=reason)
        if ejected is not None:
            self.board.set_health(address, 0.0)
        return ejected

    def is_warming(self, address: str) -> bool:
        """Whether the endpoint is within its slow start."""
        return self.ejector.health(address) < 1.0

    def is_full(self, address: str, *, at: float) -> bool:
        """Whether the endpoint can take no more: it is ejected, or its KV cache is full."""
        return not self.ejector.health(address) or self.board.kv_share(address, at=at) >= _FULL

    def sync(self, snapshot: PoolSnapshot, *, at: float) -> None:
        """Take in the endpoints there are, and what time has done to their health."""
        entered = self.board.sync(snapshot)
        if entered is not None:
            addresses = [each.address for each in snapshot.endpoints]
            self.ejector.members(addresses, entered, at=at)
            for address in addresses:
                self.board.set_health(address, self.ejector.health(address))
        for address, health in self.ejector.update(at=at).items():
            self.board.set_health(address, health)

    def take_off(self, choice: Choice, *, at: float) -> Flight:
        """Count the request for the first endpoint of a ranking that has one."""
        self.estimates.saw_prompt(choice.uncached_tokens)
        return self.board.take_off(
            choice.ranking.endpoints[0].address,
            at=at,
            uncached_tokens=choice.uncached_tokens,
            held_tokens=choice.held_tokens,
            blocks=choice.blocks,
        )
