"""Whether a finished request failed, in the words of the label ``class``."""

from __future__ import annotations

from typing import Final

from inference_picker.messages import Ended, Finish

_ERROR_STATUS: Final = 400
_SERVER_ERROR_STATUS: Final = 500

MALFORMED: Final = "malformed"


def failure_of(finish: Finish) -> str | None:
    """``4xx``, ``5xx``, ``reset``, ``no-response`` or ``malformed``; None for a success.

    ``malformed`` is a success by its status whose watched body is no answer of a model server.
    """
    if finish.status is not None and finish.status >= _ERROR_STATUS:
        return "5xx" if finish.status >= _SERVER_ERROR_STATUS else "4xx"
    if finish.ended in {Ended.NO_RESPONSE, Ended.RESET}:
        return str(finish.ended)
    if finish.tokens is not None and finish.tokens.malformed:
        return MALFORMED
    return None
