"""What a build is named after, and what its recipe pins."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from support.toolchain.recipe import (
    ARGO_VERSION,
    EXTRACTS,
    KUBERNETES_VERSION,
    RECIPES,
    Extract,
    Patch,
    Recipe,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "go.mod").write_text("module example\n")
    (tmp_path / "go.sum").write_text("")
    (tmp_path / "main.go").write_text("package main\n")
    return Recipe(
        name="example",
        folder=tmp_path,
        packages={"example": "."},
        estimate_s=1,
        sources=("*.go",),
    )


def test_equal_inputs_have_one_name(recipe: Recipe) -> None:
    assert recipe.digest("go1") == replace(recipe).digest("go1")


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"ldflags": "-s"}, id="linker flags"),
        pytest.param({"packages": {"other": "."}}, id="packages"),
        pytest.param({"patches": (Patch(module="m", file="f", old="a", new="b"),)}, id="patches"),
    ],
)
def test_a_changed_recipe_has_another_name(recipe: Recipe, changed: dict[str, object]) -> None:
    assert replace(recipe, **changed).digest("go1") != recipe.digest("go1")  # type: ignore[arg-type]


@pytest.mark.parametrize("file", ["go.mod", "go.sum", "main.go", "pb/added.go"])
def test_a_changed_file_gives_another_name(recipe: Recipe, file: str) -> None:
    before = recipe.digest("go1")
    (recipe.folder / file).parent.mkdir(exist_ok=True)
    (recipe.folder / file).write_text("changed\n")
    assert recipe.digest("go1") != before


def test_a_changed_test_builds_nothing(recipe: Recipe) -> None:
    before = recipe.digest("go1")
    (recipe.folder / "main_test.go").write_text("package main\n")
    assert recipe.digest("go1") == before


def test_another_go_gives_another_name(recipe: Recipe) -> None:
    assert recipe.digest("go1") != recipe.digest("go2")


@pytest.mark.parametrize("recipe", [*RECIPES, *EXTRACTS], ids=lambda recipe: str(recipe.name))
def test_every_recipe_is_pinned_by_a_go_mod_and_a_go_sum(recipe: Recipe | Extract) -> None:
    assert (recipe.folder / "go.mod").read_text().startswith("module ")
    assert " h1:" in (recipe.folder / "go.sum").read_text()


@pytest.mark.parametrize(
    ("name", "module", "version"),
    [
        ("kubernetes", "k8s.io/kubernetes", KUBERNETES_VERSION),
        ("argo-rollouts", "github.com/argoproj/argo-rollouts", ARGO_VERSION),
    ],
)
def test_binaries_say_the_version_they_are_built_from(name: str, module: str, version: str) -> None:
    (recipe,) = (recipe for recipe in RECIPES if recipe.name == name)
    go_mod = (recipe.folder / "go.mod").read_text()
    assert re.search(rf"^\s*{re.escape(module)} {re.escape(version)}\b", go_mod, re.MULTILINE)
    assert f"ersion={version}" in recipe.ldflags
