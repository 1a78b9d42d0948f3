from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from inference_analysis import schema
from inference_analysis.checking import parse
from inference_analysis.policies import Policy

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
