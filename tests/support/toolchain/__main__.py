"""``python -m support.toolchain``: build everything and print where it is."""

from __future__ import annotations

import argparse
import sys

from support.toolchain import ToolchainError, ensure


def main() -> int:
    """Build what is missing; print a line ``name path`` for each program."""
    parser = argparse.ArgumentParser(prog="python -m support.toolchain", description=__doc__)
    parser.add_argument("--without", action="append", default=[], metavar="RECIPE")
    options = parser.parse_args()
    try:
        toolchain = ensure(without=options.without)
    except ToolchainError as error:
        print(error, file=sys.stderr)
        return 1
    for name, path in sorted({**toolchain.binaries, **toolchain.manifests}.items()):
        print(name, path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
