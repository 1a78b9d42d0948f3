"""The asyncio edge of the engine: lets each step's time pass, then hands its tokens out.

The engine's clock is the model's own: a step takes what the model says, however late this process
is woken. So what a server reports does not depend on how busy the machine is that simulates it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.simulated_vllm.engine import Emitted, Engine, Sequence

# A loop that lags by more than this (a suspended process) starts anew from the present instead
# of computing all the missed steps at once.
_LAG_LIMIT_S = 0.25


class Mailbox:
    """Where one handler learns how many tokens its sequence has.

    A step costs its listeners one wake-up each, whatever number of tokens has gathered; a
    request without streaming is woken once, at the end.
    """

    def __init__(self, sequence: Sequence, *, interval: int | None) -> None:
        self.sequence = sequence
        self._interval = interval
        self._tokens = 0
        self._waiter: asyncio.Future[None] | None = None

    async def more_than(self, seen: int) -> int:
        """The number of tokens, once it is above `seen` (and, if not streamed, complete)."""
        while self._tokens <= seen:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._tokens

    def deliver(self) -> None:
        """Wake the listener if its sequence has news for it."""
        sequence = self.sequence
        due = sequence.ended or (
            self._interval is not None
            and (sequence.generated == 1 or sequence.generated % self._interval == 0)
        )
        if due:
            self._tokens = sequence.generated
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)


class Driver:
    """Runs an engine in real time."""

    def __init__(
        self,
        engine: Engine,
        *,
        clock: Callable[[], float],
        on_step: Callable[[list[Emitted]], None],
    ) -> None:
        self.engine = engine
        self._clock = clock
        self._on_step = on_step
        self._mailboxes: dict[Sequence, Mailbox] = {}
        self._work = asyncio.Event()
        self._since = (clock(), clock())
        """By the real clock, and by the engine's at the same moment."""
        self._step_ends: float | None = None
        """By the engine's clock."""
        self._woken: float | None = None
        """When the last request arrived, None if none has since the latest pause began."""

    def now(self) -> float:
        """Seconds by the engine's clock; it does not pass the end of a step before the step ends.

        Between steps it runs as the real one does.
        """
        real, engine = self._since
        now = engine + self._clock() - real
        return now if self._step_ends is None else min(now, self._step_ends)

    def submit(self, sequence: Sequence, *, interval: int | None) -> Mailbox:
        """Queue a sequence. `interval`: wake at each so many tokens; None: only at the end."""
        self.engine.add(sequence)
        mailbox = self._mailboxes[sequence] = Mailbox(sequence, interval=interval)
        self._woken = sequence.arrived
        self._work.set()
        return mailbox

    def leave(self, sequence: Sequence) -> None:
        """Forget a sequence; if it has not ended it is aborted."""
        self._mailboxes.pop(sequence, None)
        self.engine.abort(sequence)

    async def run(self) -> None:
        """Step until cancelled. Idle time costs nothing."""
        due = self._clock()
        now = self.now()
        while True:
            plan = self.engine.plan(now)
            if plan is None:
                now = await self._pause(now)
                due = self._clock()
                continue
            real = self._clock()
            self._since, self._step_ends = (real, now), now + plan.duration_s
            # Counted from when the last step was due, so that wake-ups do not add up to drift.
            due = (due if real - due < _LAG_LIMIT_S else real) + plan.duration_s
            await asyncio.sleep(max(0.0, due - real))
            now = self._step_ends
            emitted = self.engine.complete(plan, now)
            self._on_step(emitted)
            for item in emitted:
                mailbox = self._mailboxes.get(item.sequence)
                if mailbox is not None:
                    mailbox.deliver()

    async def _pause(self, now: float) -> float:
        """Wait for work; the engine's time at which it arrived."""
        self._since, self._step_ends, self._woken = (self._clock(), now), None, None
        self._work.clear()
        await self._work.wait()
        return self.now() if self._woken is None else self._woken
