"""Which answers are watched for their tokens."""

from __future__ import annotations

from inference_picker.messages import Sample
from inference_picker.splits import EvenSequence


class Sampling:
    """Every canary request and its control, and an even share of the rest."""

    def __init__(self, *, share: float, start: int = 0) -> None:
        """``share`` of the background, 0 to 1; ``start`` is where the even sequence begins."""
        self._share = share
        self._sequence = EvenSequence(start)

    def watches(self, sample: Sample) -> bool:
        """Whether the next request of this sample is watched."""
        return sample is not Sample.BACKGROUND or self._sequence.next_below(self._share)
