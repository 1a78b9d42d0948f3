"""Which target model (LoRA adapter) a request is sent to, and to which comparison it belongs.

As with versions of pods, a request is a point: of its user where it tells one, else the next of an
even sequence; the canary's users only become more while its weight rises. The reference of a
canary adapter is a second alias of the stable one, ``<stable>-control``, loaded beside it: it gets
as many requests as the canary and, like it, a prefix cache of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from inference_picker.messages import Sample
from inference_picker.places import place_of
from inference_picker.splits import EvenSequence, ModelSplit, Target

if TYPE_CHECKING:
    from collections.abc import Collection

CONTROL_SUFFIX: Final = "-control"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The name to send, what the request is compared as, and its group where it is sticky."""

    name: str
    sample: Sample = Sample.BACKGROUND
    bucket: str = ""


class TargetDraw:
    """Draws targets. Only the even sequences are state: restarts change no user's target."""

    def __init__(self, start: int = 0) -> None:
        """``start`` is where the sequences begin; pickers of one pool differ in it."""
        self._start = start
        self._sequences: dict[str | None, EvenSequence] = {}

    def draw(
        self, split: ModelSplit | None, model: str, *, key: str | None, names: Collection[str]
    ) -> Drawn | None:
        """The target of a request for ``model``; None where the name is reserved.

        ``key`` tells the user; ``names`` are the models that servers list.
        """
        if split is None:
            return Drawn(name=model)
        if split.reserved:
            return None
        whole = with_control(split, names)
        if key is None:
            sequence = self._sequences.setdefault(split.model, EvenSequence(self._start))
            point, bucket = sequence.next(), ""
        else:
            point, bucket = _place(key, split)
        name = whole.target_at(point) or model
        return Drawn(name=name, sample=_sample(split, name), bucket=bucket)


def with_control(split: ModelSplit, names: Collection[str]) -> ModelSplit:
    """The split with the control alias of its stable target, as large as the canary.

    Unchanged where no stable target is known, its alias is not listed, or nothing is a canary.
    Where the canary has more than stable, the alias takes all that stable has.
    """
    stable = next((target for target in split.targets if target.name == split.stable), None)
    alias = f"{split.stable}{CONTROL_SUFFIX}"
    if stable is None or alias not in names or any(each.name == alias for each in split.targets):
        return split
    canary = sum(max(0, target.weight) for target in split.targets if target is not stable)
    matched = min(canary, max(0, stable.weight))
    if not matched:
        return split
    control = Target(name=alias, weight=matched)
    rest = replace(stable, weight=stable.weight - matched)
    # On the side away from the canary, whose users then only become more while its weight rises.
    pair = (control, rest) if split.targets[0] is stable else (rest, control)
    return replace(
        split,
        targets=tuple(
            each for target in split.targets for each in (pair if target is stable else (target,))
        ),
    )


def _sample(split: ModelSplit, name: str) -> Sample:
    if not split.stable or name == split.stable:
        return Sample.BACKGROUND
    return Sample.CONTROL if name == f"{split.stable}{CONTROL_SUFFIX}" else Sample.CANARY


def _place(key: str, split: ModelSplit) -> tuple[int, str]:
    """The user's point in [0, 2**64), the same through all weights of one release, and bucket."""
    others = sorted(target.name for target in split.targets if target.name != split.stable)
    return place_of(key, "/".join((split.model or "", *others)))
