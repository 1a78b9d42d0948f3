"""The books of one exchange: its pick, and what was seen of the answer, closed once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference_picker.messages import Ended, Finish

if TYPE_CHECKING:
    from inference_picker.messages import Pick
    from inference_picker.tokens import TokenWatch


class Books:
    """What request side and response side of an exchange both know.

    Once a pick is entered, `close` gives exactly one `Finish`, at its first call.
    """

    __slots__ = (
        "_closed",
        "body_asked",
        "over",
        "pick",
        "served",
        "started_at",
        "status",
        "watch",
    )

    def __init__(self) -> None:
        """Open the books before the first message."""
        self.started_at = 0.0
        self.pick: Pick | None = None
        self.status: int | None = None
        self.served: str | None = None
        self.body_asked = False
        self.watch: TokenWatch | None = None
        self.over = False
        """Whether nothing more is to be answered on either side."""
        self._closed = False

    def close(self, ended: Ended, at: float) -> tuple[Finish, ...]:
        """The end of the pick, where there was one and it has not ended before."""
        if self.pick is None or self._closed:
            return ()
        self._closed = True
        watch = self.watch
        first_at = None if watch is None else watch.first_at
        return (
            Finish(
                pick=self.pick,
                ended=ended,
                duration_s=at - self.started_at,
                status=self.status,
                served=self.served,
                first_token_s=None if first_at is None else first_at - self.started_at,
                body_asked=self.body_asked,
                tokens=None if watch is None else watch.times(complete=ended is Ended.COMPLETE),
            ),
        )
