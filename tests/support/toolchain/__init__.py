"""The programs of the local cluster: built from Go modules once, cached outside the repository.

Use ``ensure()`` to get them; ``python -m support.toolchain`` builds all of them beforehand.
"""

from __future__ import annotations

from support.toolchain.build import ToolchainError
from support.toolchain.ensure import Toolchain, ensure

__all__ = ["Toolchain", "ToolchainError", "ensure"]
