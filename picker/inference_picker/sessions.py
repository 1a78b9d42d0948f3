"""Sessions: a token in the answer, by which a client comes back to the server that knows it.

The token names the endpoint and the session. The session's own part stays when the endpoint goes:
it is what versions are drawn by, so that a session keeps its version through a release. Header
and idea are llm-d-router's, whose tokens (base64 of namespace/name) are understood as well.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

    from inference_picker.pool import Endpoint

TOKEN_HEADER: Final = "x-session-token"  # noqa: S105 - a header's name
_MAX_LENGTH: Final = 1024
_FIRST_FAILURE: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionToken:
    """What a token says."""

    endpoint: str
    """``POD:PORT``, ``IP:PORT``, or the name of a pod alone."""
    session: str = ""
    """Empty in tokens of llm-d-router."""


def read_token(text: str) -> SessionToken | None:
    """The token of a header's value; None where it is something else."""
    if not text or len(text) > _MAX_LENGTH:
        return None
    try:
        found = base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    endpoint, mark, session = found.rpartition("#")
    if mark:
        return SessionToken(endpoint=endpoint, session=session)
    namespace, slash, name = found.partition("/")
    return SessionToken(endpoint=name) if slash and namespace and name else None


def token_of(endpoint: Endpoint, session: str) -> str:
    """The token that brings a session back to the endpoint."""
    name = endpoint.address
    if endpoint.pod:
        name = f"{endpoint.pod}:{endpoint.address.rpartition(':')[2]}"
        name = endpoint.address if endpoint.pod == endpoint.address else name
    return base64.b64encode(f"{name}#{session}".encode()).decode()


def is_named(endpoint: Endpoint, name: str) -> bool:
    """Whether a token's ``endpoint`` is this one."""
    if not name:
        return False
    if name in {endpoint.address, endpoint.pod}:
        return True
    pod, _, port = name.rpartition(":")
    return bool(pod) and pod == endpoint.pod and endpoint.address.endswith(f":{port}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A request's session, and the tokens that its answer may carry."""

    sent: str = ""
    """The token of the request."""
    tokens: Mapping[str, str]
    """Tokens by the endpoint's address, of those that may serve."""

    def is_news(self, address: str) -> bool:
        """Whether the client must be told of this endpoint."""
        return self.tokens.get(address, self.sent) != self.sent

    def answer(self, address: str, status: int | None) -> str | None:
        """The token for an answer of this endpoint; None where there is nothing to tell."""
        failed = status is None or status >= _FIRST_FAILURE
        return None if failed or not self.is_news(address) else self.tokens.get(address)


def session_of(headers: Mapping[str, str], random: Random) -> tuple[str, str]:
    """The token that the request carries, and its session: that of the token, or a new one."""
    sent = headers.get(TOKEN_HEADER, "")
    token = read_token(sent)
    if token is not None and token.session:
        return sent, token.session
    return sent, f"{random.getrandbits(64):016x}"
