# ruff: noqa: INP001 - a script beside its input, no package
"""Write picker/inference_picker/_pb from ext_proc.proto: `python picker/proto/generate.py`."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "inference_picker" / "_pb"


def main() -> int:
    """Return the compiler's exit status; the output is checked in."""
    return subprocess.run(  # noqa: S603 - our own files through our own interpreter
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"--proto_path={HERE}",
            f"--python_out={OUT}",
            f"--pyi_out={OUT}",
            "ext_proc.proto",
        ],
        check=False,
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
