"""Every test that docs/proofs.md names exists."""

from __future__ import annotations

import ast
import re

import pytest

from support.repository import ROOT

PAGE = (ROOT / "docs/proofs.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


def names_in(path: str) -> set[str]:
    """Names of the functions and assigned classes at the top of a file."""
    tree = ast.parse((ROOT / path).read_text())
    found = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {item.id for item in node.targets if isinstance(item, ast.Name)}
    return found


@pytest.mark.parametrize(("path", "name"), NAMED, ids=[name for _, name in NAMED])
def test_a_named_test_exists(path: str, name: str) -> None:
    assert name in names_in(path)


def test_every_row_names_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    heads = [row for row in rows if "`tests/" not in row]
    assert heads == ["| promise | test |"] * PAGE.count("##")
