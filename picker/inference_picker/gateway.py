"""What the gateways turned out to be able to do: their modes, and whether they take overrides."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from inference_picker.messages import BodyMode, Ended, Finish

if TYPE_CHECKING:
    from inference_picker.metrics import Metrics

_log = structlog.get_logger(__name__)

_SEEN_BY_MODE = {
    BodyMode.NONE: "every answer to its exact end, the tokens of the sampled ones",
    BodyMode.FULL_DUPLEX_STREAMED: "sampled answers only, each chunk sent back: set the response "
    "body mode to NONE, response trailers to SEND and allow the mode override, and every answer "
    "is followed to its end at a fraction of the cost",
}
_SEEN_ELSE = (
    "every answer, and every chunk of it unless the mode override is allowed: set the response "
    "body mode to NONE"
)


class Gateways:
    """Learns from each exchange. One process may be called by several gateways."""

    def __init__(self, metrics: Metrics, pool: str = "") -> None:
        """Nothing is known before the first exchange; ``pool`` is the pool's name in the log."""
        self._log = _log.bind(pool=pool) if pool else _log
        self._metrics = metrics
        self._modes: dict[tuple[BodyMode, BodyMode], str] = {}
        self._streams = False
        self.echo = False
        """Whether a gateway wants every chunk of an answer sent back."""

    def called(self, request: BodyMode, response: BodyMode) -> None:
        """Note an exchange's modes, and say so at the first one of its kind."""
        if (request, response) in self._modes:
            return
        self._tell(request, response, "unknown")
        self.echo = self.echo or response is BodyMode.FULL_DUPLEX_STREAMED
        self._log.info(
            "gateway mode found",
            request_body=request.name,
            response_body=response.name,
            followed=_SEEN_BY_MODE.get(response, _SEEN_ELSE),
        )
        if request is BodyMode.STREAMED:
            self._log.warning(
                "the gateway sends request bodies STREAMED: endpoints are chosen before the model "
                "is known; set BUFFERED or FULL_DUPLEX_STREAMED"
            )

    def corrected(self, finish: Finish, request: BodyMode, response: BodyMode) -> Finish:
        """The finish, told a reset where a body was asked for and this gateway does send them."""
        asked = finish.body_asked and response is BodyMode.NONE
        if not asked:
            return finish
        if finish.ended in {Ended.COMPLETE, Ended.RESET}:
            if not self._streams:
                self._streams = True
                self._tell(request, response, "yes")
            return finish
        if finish.ended is Ended.UNSEEN and self._streams:
            return replace(finish, ended=Ended.RESET)
        if finish.ended is Ended.UNSEEN:
            if self._modes[request, response] == "unknown":
                self._tell(request, response, "no")
                self._log.warning(
                    "the gateway did not send a response body that was asked for: allow the mode "
                    "override (allow_mode_override), or tokens are not seen and model names are "
                    "not written back"
                )
            # Its body was never seen: what is known of it is its end.
            return replace(finish, tokens=None)
        return finish

    def _tell(self, request: BodyMode, response: BodyMode, override: str) -> None:
        old = self._modes.get((request, response))
        gauge = self._metrics.gateway_mode
        if old is not None:
            gauge.remove(request.name, response.name, old)
        self._modes[request, response] = override
        gauge.labels(request.name, response.name, override).set(1)
