"""Errors of the picker, split by who must act.

::

    PickerError
    ├── ConfigError          the user: a flag or an address is wrong
    ├── BodyError            the client: the request body names no model
    └── PeerProtocolError    the gateway: a message that the protocol does not allow here
"""

from __future__ import annotations


class PickerError(Exception):
    """Anything that the picker raises on purpose."""


class ConfigError(PickerError):
    """A setting is wrong; the message says where and what would be right."""


class BodyError(PickerError):
    """A request body that is no JSON object, or whose ``model`` is missing or no string.

    ``names_no_model`` tells the second case from the first.
    """

    def __init__(self, message: str, *, names_no_model: bool = False) -> None:
        """Keep the sentence for the client, and which of the two cases it is."""
        super().__init__(message)
        self.names_no_model = names_no_model


class PeerProtocolError(PickerError):
    """Envoy sent a message that is illegal in the exchange's state. The state is unchanged."""
