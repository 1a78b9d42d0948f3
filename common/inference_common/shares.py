"""How the requests of one InferencePool are divided between versions of its pods.

The plugin writes the value as an annotation of the pool, every picker of the pool enforces it and
says on its metrics port which value it holds. Both sides compare digests of the text, so that what
is verified is what was written, byte for byte.

The value is compact JSON: ``{"rollout": "NS/NAME", "uid": UID, "counter": N, "stable": HASH,
"shares": {HASH: WEIGHT, …}}``. A version is the ``rollouts-pod-template-hash`` of its pods; one
that is not in ``shares`` gets nothing. ``counter`` rises with every change, so that a picker never
goes back to an older value that reaches it late.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

ACKNOWLEDGEMENT_PATH: Final = "/shares"
"""On a picker's metrics port: ``{"pools": {"NS/NAME": {"digest", "state", "shares"}}}``."""

_FIELDS: Final = ("rollout", "uid", "counter", "stable", "shares")
_DIGEST_DIGITS: Final = 16
WEIGHT_MAX: Final = 1_000_000
"""As of a backendRef (Gateway API)."""


class SharesError(ValueError):
    """The text is no value of the annotation; the message says what was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolShares:
    """Weights by version, in proportion: at least one is above 0.

    ``rollout`` (``NS/NAME``) and ``uid`` are of the Rollout that commands them, ``stable`` is the
    version that takes what no other version can.
    """

    rollout: str
    uid: str
    counter: int
    stable: str
    weights: Mapping[str, int]

    def share(self, version: str) -> float:
        """The version's part of the requests, 0 to 1."""
        return self.weights.get(version, 0) / sum(self.weights.values())


def encode(shares: PoolShares) -> str:
    """The annotation's value: the same for the same shares, whatever their order."""
    fields = {
        "rollout": shares.rollout,
        "uid": shares.uid,
        "counter": shares.counter,
        "stable": shares.stable,
        "shares": dict(sorted(shares.weights.items())),
    }
    return json.dumps(fields, separators=(",", ":"))


def decode(text: str) -> PoolShares:
    """The value of an annotation. Raises SharesError for any other text."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SharesError(f"not JSON ({error}): {text[:80]!r}") from None
    if not isinstance(fields, dict) or sorted(fields) != sorted(_FIELDS):
        raise SharesError(f"expected an object with {', '.join(_FIELDS)}; found {text[:80]!r}")
    for name in ("rollout", "uid", "stable"):
        if not isinstance(fields[name], str) or not fields[name]:
            raise SharesError(f"{name}: expected a text; found {fields[name]!r}")
    if not _is_weight(fields["counter"], None):
        raise SharesError(f"counter: expected a whole number; found {fields['counter']!r}")
    weights = fields["shares"]
    if not isinstance(weights, dict) or not all(
        version and _is_weight(weight, WEIGHT_MAX) for version, weight in weights.items()
    ):
        raise SharesError(
            f"shares: expected whole numbers from 0 to {WEIGHT_MAX} by version; found {weights!r}"
        )
    if not any(weights.values()):
        raise SharesError(f"shares: no version has a weight above 0: {weights!r}")
    return PoolShares(
        rollout=fields["rollout"],
        uid=fields["uid"],
        counter=fields["counter"],
        stable=fields["stable"],
        weights=weights,
    )


def commanded_weights(text: str, rollout: str, uid: str) -> dict[str, int] | None:
    """The versions' weights that the plugin's own mark on the pool tells (``names``' commanded).

    The plugin writes mark and shares in one patch, so that shares which the mark contradicts were
    written by somebody else. None where the mark does not tell.
    """
    try:
        entry = json.loads(text)[rollout]
        if entry["uid"] != uid:
            return None
        return {str(version): int(weight) for _, version, weight in entry["refs"]}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def commanded_homes(text: str) -> list[str]:
    """What the plugin's mark on an object tells of each Rollout's stable revision: its target."""
    try:
        return [str(entry["home"]) for entry in json.loads(text).values() if entry["home"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def digest(text: str) -> str:
    """What a picker acknowledges: the first 16 hexadecimal digits of the text's SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_DIGITS]


def _is_weight(value: Any, most: int | None) -> bool:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        return False
    return most is None or value <= most
