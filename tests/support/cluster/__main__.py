"""``python -m support.cluster up | down | status | exec -- COMMAND``."""

from __future__ import annotations

import argparse
import signal
import sys

from support.cluster import command
from support.cluster.guardian import guard
from support.cluster.layout import Layout
from support.cluster.process import die_with_parent, require_linux
from support.toolchain import ToolchainError


def main() -> int:
    """Run one command; the exit code is its own, or that of the command it ran."""
    options = _parser().parse_args()
    require_linux()
    try:
        return _run(options, Layout(command.state_dir_of(options.state_dir)))
    except (ToolchainError, FileNotFoundError, FileExistsError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _run(options: argparse.Namespace, layout: Layout) -> int:
    match options.command:
        case "up":
            return command.up(layout, options.without)
        case "down":
            return command.down(layout)
        case "status":
            return command.status(layout)
        case "exec":
            return command.execute(options.argv, options.without)
        case _:
            if options.dies_with is not None:
                die_with_parent(signal.SIGTERM, options.dies_with)
            return guard(layout, options.without, options.report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m support.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    about = {
        "up": "start a cluster and leave it running",
        "down": "stop it",
        "status": "list its processes",
        "exec": "run a command on a cluster that lives as long as the command",
        "guard": "(what up and exec start in the background)",
    }
    for name, text in about.items():
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("--state-dir", metavar="DIR")
        if name in {"up", "exec", "guard"}:
            sub.add_argument("--without", action="append", default=[], metavar="PART")
        if name == "exec":
            sub.add_argument("argv", nargs="+", metavar="COMMAND")
        if name == "guard":
            sub.add_argument("--report", type=int, required=True)
            sub.add_argument("--dies-with", type=int)
    return parser


if __name__ == "__main__":
    sys.exit(main())
