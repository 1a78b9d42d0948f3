"""docs/picker.md names every series that the picker has, and no other."""

import re
from pathlib import Path

from inference_picker.director import Director, Settings
from inference_picker.labels import EndpointLabels
from inference_picker.messages import Reason
from inference_picker.metrics import (
    PREFIX,
    Metrics,
    PickLogCollector,
    PoolCollector,
    ScrapeCollector,
)
from inference_picker.peer_series import PeerCollector
from inference_picker.pool import StaticSource, make_snapshot
from inference_picker.scheduling_series import SchedulingCollector
from inference_picker.scraping import Scraper
from inference_picker.shares_series import SharesCollector

PAGE = (Path(__file__).parents[3] / "docs" / "picker.md").read_text(encoding="utf-8")
_ROW = re.compile(r"^\| `([a-z_]+)` \| (counter|gauge|histogram) \|", re.MULTILINE)


def series() -> dict[str, str]:
    """Type by name of every family that a running picker has."""
    source = StaticSource(make_snapshot([]))
    metrics = Metrics()
    director = Director(source=source, metrics=metrics, settings=Settings())
    for collector in (
        PoolCollector(source=source, in_flight={}, labels=EndpointLabels()),
        ScrapeCollector(Scraper(source.snapshot, director.note_readings, interval_s=1.0)),
        PickLogCollector(None),
        SchedulingCollector(director, source),
        SharesCollector(source=source, unmet=director.unmet),
        PeerCollector(
            director, labels=EndpointLabels(), picks=metrics.picks, name="pool", namespace="llm"
        ),
    ):
        metrics.registry.register(collector)
    return {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in metrics.collect()
    }


def test_the_table_names_every_series_with_its_type() -> None:
    documented = {f"{PREFIX}_{name}": kind for name, kind in _ROW.findall(PAGE)}
    ours = {name: kind for name, kind in series().items() if name.startswith(f"{PREFIX}_")}

    assert documented == ours


def test_the_peers_names_are_listed() -> None:
    peers = {name for name in series() if not name.startswith(f"{PREFIX}_")}
    listed = set(
        re.findall(
            r"`((?:llm_d_epp|inference_objective|inference_pool|inference_extension)_[a-z_]+)`",
            PAGE,
        )
    )

    assert listed == peers


def test_every_reason_is_explained() -> None:
    assert {reason for reason in Reason if f"`{reason}`" not in PAGE} == set()
