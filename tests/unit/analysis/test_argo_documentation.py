from __future__ import annotations

import re

import pytest
import yaml
from pydantic import BaseModel

from inference_analysis.argo import settings
from inference_analysis.argo.linting import mistakes
from inference_analysis.command import app
from support.repository import ROOT

PAGE = (ROOT / "docs" / "analysis.md").read_text()
OWN = {settings.__name__}
FIELDS = sorted(
    {
        field.alias or name
        for model in vars(settings).values()
        # Policy and quality have pages of their own.
        if isinstance(model, type) and issubclass(model, BaseModel) and model.__module__ in OWN
        for name, field in model.model_fields.items()
    }
)


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_of_analysis_yaml_is_described(field: str) -> None:
    assert re.search(rf"[`.]{field}\b", PAGE)


def test_every_command_is_named() -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]
    of_argo = {"run", "serve", "template", "lint", "acknowledge", "history"}
    assert of_argo <= names
    assert all(f"`{name}`" in PAGE for name in of_argo)


def test_the_steps_that_the_page_shows_have_no_mistake() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    canary = yaml.safe_load(example)["strategy"]["canary"]
    canary["steps"] = canary["steps"][:2]
    rollout = {
        "kind": "Rollout",
        "metadata": {"name": "chat"},
        "spec": {"replicas": 4, "strategy": {"canary": canary}},
    }
    folder = ROOT / "manifests" / "analysis"
    templates = list(yaml.safe_load_all((folder / "templates.yaml").read_text()))
    found = mistakes([*templates, rollout])
    # One canary and four stable pods: a remark, which the page explains.
    assert [item.text[:27] for item in found] == ["1 canary and 4 stable pods:"]
    assert not any(item.fatal for item in found)
