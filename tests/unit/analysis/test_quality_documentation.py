"""docs/quality.md describes what there is, and its examples work."""

from __future__ import annotations

import dataclasses
import re
from typing import get_args

import pytest
from pydantic.alias_generators import to_camel

from inference_analysis.prompts import prompt_sets, scores
from inference_analysis.prompts.checks import Check
from inference_analysis.prompts.judge import VERSION
from inference_analysis.prompts.measures import DETECTORS
from inference_analysis.prompts.settings import EndpointDocument, JudgeDocument, QualityDocument
from support.repository import ROOT

PAGE = (ROOT / "docs" / "quality.md").read_text()
BLOCKS = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
CHECKS = get_args(get_args(Check)[0])
ROWS = dict(re.findall(r"^\| `(\w+)` \|(.*)$", PAGE, re.MULTILINE))
FIELDS = [
    *(
        model.model_fields[name].alias or name
        for model in (QualityDocument, EndpointDocument, JudgeDocument)
        for name in model.model_fields
    ),
    *DETECTORS,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: str(check.__name__))
def test_every_check_is_described_with_its_keys(check: type) -> None:
    fields = {field.name: field for field in dataclasses.fields(check)}
    names = {to_camel(name) for name in fields}
    row = ROWS[str(fields["type"].default)]
    keys = {"schema" if name == "jsonSchema" else name for name in names - {"type", "weight"}}
    assert {key for key in keys if f"`{key}`" not in row} == set()


@pytest.mark.parametrize("field", sorted(set(FIELDS)))
def test_every_setting_is_described(field: str) -> None:
    assert re.search(rf"`{field}`", PAGE)


def test_the_prompt_set_of_the_page_can_be_used() -> None:
    found = prompt_sets.read(BLOCKS[0].encode())
    assert [question.id for question in found.questions] == ["refund-1"]


def test_the_scores_of_the_page_can_be_used() -> None:
    found = scores.read(BLOCKS[1].encode())
    assert len(scores.prompt_documents({"page": found})) == 1


def test_the_figures_of_the_page_are_those_of_the_code() -> None:
    assert f"The least is {prompt_sets.NEEDED} " in PAGE
    assert f"{len(prompt_sets.load('example').questions)} short tasks" in PAGE
    assert VERSION == "pairwise/1"
