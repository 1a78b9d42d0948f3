"""Writes each request into the series, once it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference_picker.labels import OTHER, EndpointLabels, model_label
from inference_picker.messages import Ended, Finish, Pick, Reason
from inference_picker.outcomes import failure_of

if TYPE_CHECKING:
    from inference_picker.messages import TokenTimes
    from inference_picker.metrics import Metrics
    from inference_picker.pool import PoolSnapshot
    from inference_picker.series import LabelValues


class Recorder:
    """The one writer of request series."""

    def __init__(self, metrics: Metrics, endpoints: EndpointLabels | None = None) -> None:
        """Write to these series."""
        self.metrics = metrics
        self.endpoints = endpoints or EndpointLabels()

    def picked(self, pick: Pick, pool: PoolSnapshot) -> None:
        """An endpoint was chosen."""
        label, _ = self._endpoint(pick, pick.endpoints[0], pool)
        self.metrics.picks.inc((pick.version, label, model_label(pool, pick.target)))

    def refused(self, reason: Reason) -> None:
        """The picker answered a request itself."""
        self.metrics.refusals.inc((reason,))

    def finished(self, finish: Finish, pool: PoolSnapshot) -> None:
        """A picked request is over."""
        metrics = self.metrics
        pick = finish.pick
        # What happened is told of the endpoint that served, where the gateway names it.
        endpoint, version = self._endpoint(pick, finish.served or pick.endpoints[0], pool)
        models = (model_label(pool, pick.model), model_label(pool, pick.target))
        labels: LabelValues = (
            *(version, endpoint, *models, pick.sample),
            *("end" if finish.tokens is None else "tokens", pick.phase, pick.bucket),
        )
        if finish.ended is Ended.UNFOLLOWED:
            metrics.unfollowed.inc(labels)
            return
        metrics.requests.inc(labels)
        for family in metrics.peers.requests:
            family.inc(models)
        failure = failure_of(finish)
        if failure is not None:
            metrics.errors.inc((*labels, failure))
            for family in metrics.peers.errors:
                family.inc((*models, failure))
            return
        metrics.duration.observe(labels, finish.duration_s)
        for histogram in metrics.peers.durations:
            histogram.observe(models, finish.duration_s)
        if finish.first_token_s is not None:
            metrics.first_token.observe(labels, finish.first_token_s)
            metrics.peers.first_token.observe((*models, "true"), finish.first_token_s)
        if finish.tokens is not None:
            self._tokens(finish.tokens, labels, models)

    def _tokens(self, tokens: TokenTimes, labels: LabelValues, models: LabelValues) -> None:
        metrics = self.metrics
        for gap_s, times in tokens.gaps_s:
            metrics.inter_token.observe(labels, gap_s, times)
            metrics.peers.inter_token.observe(models, gap_s, times)
        if tokens.per_token_s is not None:
            metrics.per_output_token.observe(labels, tokens.per_token_s)
            metrics.peers.per_output_token.observe(models, tokens.per_token_s)
        if tokens.usage is None:
            return
        metrics.prompt_tokens.observe(labels, tokens.usage.prompt)
        metrics.output_tokens.observe(labels, tokens.usage.output)
        metrics.cached_tokens.observe(labels, tokens.usage.cached)
        for histogram in metrics.peers.prompt_tokens:
            histogram.observe(models, tokens.usage.prompt)
        for histogram in metrics.peers.output_tokens:
            histogram.observe(models, tokens.usage.output)
        metrics.peers.cached_tokens.observe(models, tokens.usage.cached)

    def _endpoint(self, pick: Pick, address: str, pool: PoolSnapshot) -> tuple[str, str]:
        found = self.endpoints.of(address, pool)
        if found is None:
            found = self.endpoints.of(pick.endpoints[0], pool)
        if found is None:
            return OTHER, pick.version
        label, version = found
        return label, version or pick.version
