"""Which version of a pool's pods a request goes to, and to which comparison it belongs.

A request is a point in [0, 1): of its user, where it tells one, else the next of an even sequence.
The canary has the low end of that range and its control arm, equal in size, the high end, so that
a rising share only ever moves users from stable to canary. The control arm is served by as many
stable pods as the canary has, and these serve nothing else while the others have room: measured
against the whole of a larger pool an identical canary looks several times slower, because fewer
pods even out less (queueing) and share one prefix cache less. They stay the same for a release, as
the canary's do: on other pods a conversation finds no cache. Where the pool is too small for that
the arm is marked instead.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from inference_common.names import PROBE_HEADER
from inference_picker.messages import Sample
from inference_picker.places import place_of
from inference_picker.sessions import TOKEN_HEADER, read_token
from inference_picker.splits import EvenSequence

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from inference_common.shares import PoolShares
    from inference_picker.pool import Endpoint

KEY_HEADERS: Final = (
    "x-session-id",
    TOKEN_HEADER,
    "x-llm-d-inference-fairness-id",
    "x-gateway-inference-fairness-id",
)
KEY_FIELDS: Final = ("prompt_cache_key", "safety_identifier", "user")
"""Of an OpenAI request body."""

_RANGE: Final = 1 << 64
_ROUNDING: Final = 1e-9
_CROWDING: Final = 1.25
"""Most that the load of stable's other pods may grow by for the control arm's own pods."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """Where one request may go.

    ``bucket`` is 0 to 63 for a sticky one, else empty. ``wanted`` is the version that was drawn;
    the endpoints are of another one, stable, where that had no room. Without endpoints the request
    must be refused.
    """

    endpoints: tuple[Endpoint, ...]
    version: str
    wanted: str
    sample: Sample
    bucket: str = ""


class Divider:
    """Draws versions. Only the even sequence is state: restarts change no user's version."""

    def __init__(self, start: int = 0) -> None:
        """``start`` is where the even sequence begins; pickers of one pool differ in it."""
        self._sequence = EvenSequence(start)

    def divide(
        self,
        shares: PoolShares,
        endpoints: Sequence[Endpoint],
        *,
        key: str | None,
        is_full: Callable[[Endpoint], bool],
    ) -> Division:
        """The version for one request, and the endpoints of it that may serve it.

        ``key`` tells the user, where one is known; ``is_full`` says that an endpoint can take no
        more, which keeps a small canary from being overrun.
        """

        def has_room(among: Sequence[Endpoint]) -> bool:
            return any(not is_full(endpoint) for endpoint in among)

        by_version: dict[str, list[Endpoint]] = {}
        for endpoint in endpoints:
            by_version.setdefault(endpoint.version, []).append(endpoint)
        salt = _salt(shares)
        point, bucket = self._place(key, salt)
        wanted, canary_share = _drawn(shares, point)
        if wanted != shares.stable:
            own = by_version.get(wanted, [])
            if has_room(own):
                return Division(
                    endpoints=tuple(own),
                    version=wanted,
                    wanted=wanted,
                    sample=Sample.CANARY,
                    bucket=bucket,
                )
        stable = by_version.get(shares.stable, [])
        canaries = {
            endpoint.pod or endpoint.address
            for version, found in by_version.items()
            if version != shares.stable and shares.weights.get(version, 0)
            for endpoint in found
        }
        matched = min(canary_share, 1 - canary_share)
        control, is_matched = _control(stable, len(canaries), canary_share, salt)
        in_control = wanted == shares.stable and point >= 1 - matched
        # What full canaries cannot take goes to stable: a control without that bound looks slower.
        if in_control and has_room(control):
            sample, chosen = Sample.CONTROL if is_matched else Sample.UNMATCHED, control
        else:
            taken = {endpoint.address for endpoint in control}
            rest = [endpoint for endpoint in stable if endpoint.address not in taken] or stable
            sample, chosen = Sample.BACKGROUND, rest if has_room(rest) else stable
        return Division(
            endpoints=tuple(chosen),
            version=shares.stable,
            wanted=wanted,
            sample=sample,
            bucket=bucket,
        )

    def _place(self, key: str | None, salt: str) -> tuple[float, str]:
        if key is None:
            return self._sequence.next() / _RANGE, ""
        point, bucket = place_of(key, salt)
        return point / _RANGE, bucket


def _control(
    stable: Sequence[Endpoint], pods: int, canary_share: float, salt: str
) -> tuple[Sequence[Endpoint], bool]:
    """What serves the control arm, and whether it is comparable; nothing without a canary.

    Pods of its own, as many as the canary's, unless that crowds the rest of stable together.
    Comparable are as many requests on as many pods that serve nothing else.
    """
    total = len({endpoint.pod or endpoint.address for endpoint in stable})
    matched = min(canary_share, 1 - canary_share)
    if not matched or not pods:
        return (), False
    rest = max(0.0, 1 - canary_share - matched)
    is_even = canary_share <= matched + _ROUNDING
    if total <= pods:
        return stable, is_even and total == pods and rest <= _ROUNDING
    if rest / (total - pods) > _CROWDING * (1 - canary_share) / total:
        return stable, False
    return control_endpoints(stable, pods, salt), is_even


def control_endpoints(stable: Sequence[Endpoint], pods: int, salt: str) -> list[Endpoint]:
    """The stable endpoints of so many pods; none for 0 pods.

    Every picker draws the same ones. More pods keep those that fewer have, and a pod that comes
    takes the place of one at most.
    """
    names = frozenset(endpoint.pod or endpoint.address for endpoint in stable)
    drawn = _drawn_pods(names, pods, salt)
    return [endpoint for endpoint in stable if (endpoint.pod or endpoint.address) in drawn]


# Asked for each request, with an answer that stays as long as the pods do.
@lru_cache(maxsize=64)
def _drawn_pods(names: frozenset[str], pods: int, salt: str) -> frozenset[str]:
    def rank(pod: str) -> bytes:
        return hashlib.blake2b(f"{salt}/{pod}".encode(), digest_size=8).digest()

    return frozenset(sorted(names, key=rank)[:pods])


def key_of(headers: Mapping[str, str], content: Mapping[str, Any] | None) -> str | None:
    """What tells the user or session of a request: a header, else a field of the body.

    The analysis' own prompts are of no user: together they would all go to one version.
    """
    if PROBE_HEADER in headers:
        return None
    for name in KEY_HEADERS:
        value = headers.get(name)
        if value and name == TOKEN_HEADER:
            token = read_token(value)
            # The endpoint in it is no user: all who are served by it would move together.
            value = value if token is None else token.session
        if value:
            return value
    for name in KEY_FIELDS:
        found = (content or {}).get(name)
        if isinstance(found, str) and found:
            return found
    return None


def _salt(shares: PoolShares) -> str:
    """The same through all steps of one release, another for the next: other users go first."""
    others = sorted(version for version in shares.weights if version != shares.stable)
    return "/".join((shares.rollout, *others))


def _drawn(shares: PoolShares, point: float) -> tuple[str, float]:
    """The version at this point, and the share of all that are not stable."""
    others = sorted(
        version for version, weight in shares.weights.items() if weight and version != shares.stable
    )
    bound = 0.0
    drawn = None
    for version in others:
        bound += shares.share(version)
        if drawn is None and point < bound:
            drawn = version
    if drawn is None:
        # With nothing left for stable only rounding leads here.
        drawn = shares.stable if shares.weights.get(shares.stable, 0) else others[-1]
    return drawn, bound
