"""A build is in the cache completely or not at all, and only one process makes it."""

from __future__ import annotations

import os
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.toolchain import build as build_module
from support.toolchain.build import ToolchainError, build, building, cache_folder, extract, prune
from support.toolchain.ensure import ensure
from support.toolchain.progress import advanced, progress
from support.toolchain.recipe import Extract, Patch, Recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    folder = tmp_path / "example"
    folder.mkdir()
    (folder / "go.mod").write_text("module example\n")
    (folder / "go.sum").write_text("")
    return Recipe(name="example", folder=folder, packages={"example": "./cmd"}, estimate_s=9)


def fake_go(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    program = folder / "go"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(build_module, "go_command", lambda: str(program))


def test_the_cache_is_where_the_user_keeps_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_folder() == Path("/elsewhere/inference-rollouts/toolchain")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache/inference-rollouts/toolchain"


def test_a_finished_build_is_there_for_the_next(tmp_path: Path) -> None:
    entry = tmp_path / "cache" / "example-1"
    with building(entry) as target:
        assert target is not None
        (target / "example").write_text("program")
        assert not entry.exists()
    assert (entry / "example").read_text() == "program"
    with building(entry) as again:
        assert again is None


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    entry = tmp_path / "example-1"
    with pytest.raises(ToolchainError, match="no luck"), building(entry):
        raise ToolchainError("no luck")
    assert [path.name for path in tmp_path.iterdir()] == ["example-1.lock"]


def test_a_build_that_was_killed_is_begun_anew(tmp_path: Path) -> None:
    entry = tmp_path / "example-1"
    left = tmp_path / "example-1.partial"
    left.mkdir()
    (left / "half").write_text("")
    with building(entry) as target:
        assert target is not None
        assert list(target.iterdir()) == []


def test_a_second_process_waits_and_finds_the_build(tmp_path: Path) -> None:
    entry = tmp_path / "example-1"
    found: list[Path | None] = []
    waits = threading.Event()

    def second() -> None:
        waits.set()
        with building(entry) as target:
            found.append(target)

    with building(entry) as target:
        assert target is not None
        other = threading.Thread(target=second)
        other.start()
        assert waits.wait(10)
    other.join(10)
    assert found == [None]


def test_only_the_latest_builds_of_a_name_are_kept(tmp_path: Path) -> None:
    names = ["bridge-a1", "bridge-a2", "bridge-a3", "bridge-a4", "bridge-a5", "bridge-x-a1"]
    for age, name in enumerate(names):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (age, age))
    (tmp_path / "bridge-a1.lock").touch()
    # The entry in use counts, however old it is.
    removed = prune(tmp_path / "bridge-a1", "bridge")
    assert [path.name for path in removed] == ["bridge-a2"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [
        *("bridge-a1", "bridge-a3", "bridge-a4", "bridge-a5", "bridge-x-a1"),
    ]


def test_a_failed_compilation_says_what_and_where(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_go(monkeypatch, tmp_path, "echo 'main.go:1: undefined: x' >&2; exit 2")
    with pytest.raises(ToolchainError) as caught:
        build(recipe, tmp_path)
    text = str(caught.value)
    assert "example: `go build" in text
    assert str(recipe.folder) in text
    assert "main.go:1: undefined: x" in text


def test_a_patched_module_is_built_from_a_changed_copy(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "module"
    module.mkdir()
    (module / "server.go").write_text('address = "0.0.0.0"\n')
    (module / "server.go").chmod(0o444)  # as in the module cache
    target = tmp_path / "target"
    target.mkdir()
    fake_go(
        monkeypatch,
        tmp_path,
        f"""case $1 in
        mod) echo '{{"Dir": "{module}"}}' ;;
        build) cat "{target}/.patched/go.mod" "{target}/.patched/example.com_server/server.go" \
            > "{target}/example" ;;
        esac""",
    )
    patch = Patch(module="example.com/server", file="server.go", old="0.0.0.0", new="127.0.0.1")
    patched = replace(recipe, patches=(patch,))
    build(patched, target)
    seen = (target / "example").read_text()
    assert "replace example.com/server => " in seen
    assert 'address = "127.0.0.1"' in seen
    assert (module / "server.go").read_text() == 'address = "0.0.0.0"\n'
    assert [path.name for path in target.iterdir()] == ["example"]


def test_a_patch_that_fits_no_longer_is_an_error(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "module"
    module.mkdir()
    (module / "server.go").write_text("nothing to change\n")
    fake_go(monkeypatch, tmp_path, f'echo \'{{"Dir": "{module}"}}\'')
    patch = Patch(module="m", file="server.go", old="0.0.0.0", new="127.0.0.1")
    patched = replace(recipe, patches=(patch,))
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(ToolchainError, match="occurs 0 times, expected once"):
        build(patched, target)


def test_an_extract_needs_every_file_it_names(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "module"
    (module / "crd").mkdir(parents=True)
    (module / "crd" / "a.yaml").write_text("a")
    fake_go(monkeypatch, tmp_path, f'echo \'{{"Dir": "{module}"}}\'')
    target = tmp_path / "target"
    target.mkdir()
    extract(Extract(name="x", folder=recipe.folder, module="m", globs=("crd/*.yaml",)), target)
    assert (target / "a.yaml").read_text() == "a"
    absent = Extract(name="x", folder=recipe.folder, module="m", globs=("gone/*.yaml",))
    with pytest.raises(ToolchainError, match="m has no file like gone"):
        extract(absent, target)


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(ToolchainError, match="no recipe named zookeeper"):
        ensure(without=["zookeeper"])


@given(estimate=st.floats(1, 1000), first=st.floats(0, 10_000), more=st.floats(0, 10_000))
def test_progress_moves_on_and_never_claims_the_end(
    estimate: float, first: float, more: float
) -> None:
    assert advanced(first, estimate) <= advanced(first + more, estimate) + 1e-9
    assert advanced(first, estimate) < estimate
    assert advanced(estimate / 2, estimate) == estimate / 2


def test_without_a_terminal_progress_is_plain_lines(
    recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress([recipe]) as show, show.building("example"):
        pass
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Building example once: about 1 min")
    assert lines[1] == "example: building (about 9 s on two cores)"
    assert lines[2] == "example: built in 0 s"
