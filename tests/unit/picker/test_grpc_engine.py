"""Which I/O engine gRPC is asked for, and that it is asked in time."""

import subprocess
import sys

from inference_picker.grpc_engine import choose_engine


def test_the_older_engine_is_asked_for() -> None:
    environment: dict[str, str] = {}

    choose_engine(environment)

    assert environment == {"GRPC_EXPERIMENTS": "-event_engine_listener"}


def test_what_the_user_asks_for_stays() -> None:
    environment = {"GRPC_EXPERIMENTS": "event_engine_listener"}

    choose_engine(environment)

    assert environment == {"GRPC_EXPERIMENTS": "event_engine_listener"}


def test_the_command_line_does_not_import_grpc_before_the_engine_is_chosen() -> None:
    program = "import sys, inference_picker.command; sys.exit('grpc' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
