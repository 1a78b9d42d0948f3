"""Errors of the analysis, split by who must act.

::

    AnalysisError
    ├── InputError       the user or the collector: the cells file cannot be used
    ├── EndpointError    whoever runs a model or the judge: its answers say nothing
    ├── PrometheusError  whoever runs Prometheus: it did not give a whole answer
    └── LedgerError      nobody, or who else writes the ledger: a look could not be booked
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


class EndpointError(AnalysisError):
    """A model endpoint (or judge) that was not reached, refuses, or does not do its part."""


class PrometheusError(AnalysisError):
    """Prometheus was not reached, refused, or answered in part only; the same may work later."""


class LedgerError(AnalysisError):
    """The ledger could not be written; without a booking no verdict is given."""
