"""What can go wrong in the plugin, split by who must act.

::

    PluginError
    ├── ConfigError      a manifest must be changed: by the user
    ├── StaleError       the controller and the API server disagree: the next call will see
    ├── ConflictError    somebody kept changing an object while it was written: the next call
    └── HoldingError     pods must stay until the gateway has moved: the next call

A text says what, where, what was found, and the remedy. It becomes an answer to the controller
in one place, ``servicer.py``.
"""

from __future__ import annotations

from typing import ClassVar


class PluginError(Exception):
    """A call that can't be answered with success. ``retryable``: the next one may be."""

    retryable: ClassVar[bool] = True
    reason: ClassVar[str] = "Failed"


class ConfigError(PluginError):
    """The configuration, or a name in it, is wrong: nothing is written until it is changed."""

    retryable: ClassVar[bool] = False
    reason: ClassVar[str] = "InvalidConfig"


class StaleError(PluginError):
    """The controller speaks of revisions that the API server does not show."""

    reason: ClassVar[str] = "StaleRevision"


class ConflictError(PluginError):
    """An object changed under every attempt to write it."""

    reason: ClassVar[str] = "Conflict"


class HoldingError(PluginError):
    """An error keeps the controller from scaling pods down while traffic may still reach them."""

    reason: ClassVar[str] = "HoldingPods"
