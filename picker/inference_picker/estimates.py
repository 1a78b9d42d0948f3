"""Quantities that the picker learns from finished requests, each a running mean."""

from __future__ import annotations

from typing import Final

from inference_picker.prompts import BYTES_PER_TOKEN

_WEIGHT: Final = 0.05
"""Of each new observation: the mean of about the last forty."""
_LEAST_WORK: Final = 512
"""Prompt tokens below which a time to first token says little about the prefill."""
PREFILL_TOKENS_PER_S: Final = 5000.0
"""Where nothing has been seen. Low on purpose: it only decides when prompts are believed to be
through whose first token is never seen, and late is safer than early."""
_RATE_BOUNDS: Final = (500.0, 200_000.0)
_BYTES_BOUNDS: Final = (1.0, 16.0)
OUTPUT_TOKENS: Final = 200.0
ANSWER_S: Final = 4.0
"""`OUTPUT_TOKENS` at 20 ms each."""


class Estimates:
    """What is learned, with safe values to begin with."""

    __slots__ = (
        *("_rates", "answer_s", "bytes_per_token", "output_tokens"),
        *("prefill_rate", "prompt_tokens"),
    )

    def __init__(self) -> None:
        """Begin with constants."""
        self._rates = 0
        self.bytes_per_token = BYTES_PER_TOKEN
        self.output_tokens = OUTPUT_TOKENS
        self.prefill_rate = PREFILL_TOKENS_PER_S
        self.answer_s = ANSWER_S
        """Mean of the seconds from an answer's first token to its end."""
        self.prompt_tokens = 0.0
        """Mean of the uncached prompt tokens of a request."""

    def saw_prompt(self, uncached_tokens: float) -> None:
        """A request with so many uncached tokens was sent."""
        if self.prompt_tokens:
            self.prompt_tokens += _WEIGHT * (uncached_tokens - self.prompt_tokens)
        else:
            self.prompt_tokens = uncached_tokens

    def saw_first_token(self, *, work_tokens: float, seconds: float) -> None:
        """So much prefill, its own included, lay before a first token that took so long."""
        if work_tokens < _LEAST_WORK or seconds <= 0:
            return
        low, high = _RATE_BOUNDS
        rate = min(high, max(low, work_tokens / seconds))
        self._rates += 1
        # The first ones count more: what they replace is only a guess.
        self.prefill_rate += max(_WEIGHT, 1 / (1 + self._rates)) * (rate - self.prefill_rate)

    def saw_answer(self, seconds: float) -> None:
        """An answer took so long from its first token to its end."""
        self.answer_s += _WEIGHT * (seconds - self.answer_s)

    def saw_usage(
        self, *, prompt_bytes: int, prompt_tokens: int | None, output_tokens: int | None
    ) -> None:
        """The server's own count of a request."""
        if prompt_tokens and prompt_bytes:
            low, high = _BYTES_BOUNDS
            ratio = min(high, max(low, prompt_bytes / prompt_tokens))
            self.bytes_per_token += _WEIGHT * (ratio - self.bytes_per_token)
        if output_tokens:
            self.output_tokens += _WEIGHT * (output_tokens - self.output_tokens)
