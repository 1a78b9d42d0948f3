"""Errors of the analysis, split by who must act.

::

    AnalysisError
    ├── InputError       the user or the collector: the cells file cannot be used
    └── PrometheusError  whoever runs Prometheus: it did not give a whole answer
"""

from __future__ import annotations


class AnalysisError(Exception):
    """Anything that the analysis raises on purpose."""


class InputError(AnalysisError):
    """A cells file that cannot be used.

    ``problems`` holds one ``JSON path: what was found, what is needed`` for each thing wrong.
    """

    def __init__(self, *problems: str) -> None:
        """Keep the problems, and join them into one message."""
        super().__init__("\n".join(problems))
        self.problems = problems


class PrometheusError(AnalysisError):
    """Prometheus was not reached, refused, or answered in part only; the same may work later."""
