from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from inference_analysis import schema
from inference_analysis.checking import parse
from inference_analysis.policies import Policy
from support.analysis_bars import SCENARIOS
from support.analysis_scenarios import Scenario, keeps_bar

PAGE = Path(__file__).parents[3].joinpath("docs/statistics.md").read_text()
FIELDS = sorted(
    {
        field.alias or name
        for model in vars(schema).values()
        if isinstance(model, type) and issubclass(model, BaseModel)
        for name, field in model.model_fields.items()
    }
    # The ledger is handed through; its inside is no one's business.
    - {
        "segments",
        "epoch",
        "since",
        "budget",
        "looks",
        "kind",
        "until",
        "slot",
        "passUse",
        "verdict",
    }
)


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_of_the_cells_file_is_described(field: str) -> None:
    assert re.search(rf"[`.\"]{field}\b", PAGE)


def test_the_example_file_is_read() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL)
    with pytest.raises(Exception, match="none of arm 'stable'"):
        parse(example)
    stable = example.replace('"prompts": [', '"prompts": [', 1)
    pods = re.search(r'"pods": \[\n(.*?)\n  \],', stable, flags=re.DOTALL)
    assert pods is not None
    other = pods[1].replace("chat-6d5f-x", "chat-9c1b-x").replace('"canary"', '"stable"', 1)
    parse(stable.replace(pods[1], f"{pods[1]},\n{other}"))


def test_the_defaults_that_the_page_names_are_the_defaults() -> None:
    policy = Policy()
    row = re.search(r"\| `familyAlpha`.*?\| ([^|]*) \|", PAGE)
    assert row is not None
    assert [float(x) for x in row[1].split(",")] == [
        policy.family_alpha,
        policy.primary_alpha,
        policy.pass_alpha,
        policy.reserve,
    ]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name.replace(" ", "-"))
def test_every_calibrated_scenario_has_its_row_and_its_bar(scenario: Scenario) -> None:
    cells = r"([0-9.]+) \| ([0-9.]+) \| ([^|]*) \| (\w*) \| (\d+)"
    row = re.search(rf"^\| {re.escape(scenario.name)} \| {cells} \|$", PAGE, flags=re.MULTILINE)
    assert row is not None
    rate, error, bar, word, runs = row.groups()
    assert bar.strip() == scenario.bar
    assert float(error) == pytest.approx(
        (float(rate) * (1.0 - float(rate)) / int(runs)) ** 0.5, abs=1e-3
    )
    kept = keeps_bar(scenario, float(rate), int(runs))
    assert word == {True: "met", False: "missed", None: ""}[kept]


def test_corrections_name_modules_and_tests_that_are_there() -> None:
    table = PAGE[PAGE.index("## Corrections to the first plan") :]
    rows = re.findall(r"^\| (\d+) \| .*? \| (`.*?`) \| (.*?) \|$", table, flags=re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, 18))
    root = Path(__file__).parents[3]
    for _, code, tests in rows:
        for name in re.findall(r"`([a-z_/]+)(?:\.[a-z_]+)?`", code):
            assert (root / "analysis/inference_analysis" / f"{name}.py").is_file(), name
        for name in re.findall(r"`(test_[a-z_]+)`", tests):
            assert list(root.glob(f"tests/*/analysis/{name}.py")), name
