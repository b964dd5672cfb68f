"""Time from a folder of images to a checked ONNX file: `init`, a run, `export` and `predict` from the command line.

    python -m benchmarks.own_images FOLDER [--init-from WEIGHTS] [KEY=VALUE ...]

FOLDER holds class folders. Everything is written to a temporary folder.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_PROGRAM = "import sys; from tui.cli import main; sys.exit(main())"


def main() -> int:
    """Print the seconds of each command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--init-from", default="imagenet")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder.absolute()
        commands = {
            "init": ["init", str(folder), "-o", "own.yaml", "--init-from", arguments.init_from],
            "train": ["own.yaml", "--headless", "--name", "own", *arguments.overrides],
            "export": ["export", "own"],
            "predict": ["predict", "runs/own/export/model.onnx", str(folder), "--format", "csv"],
        }
        total = 0.0
        for name, command in commands.items():
            begun = time.monotonic()
            process = subprocess.run(
                [sys.executable, "-c", _PROGRAM, *command], cwd=scratch, capture_output=True, text=True
            )
            seconds = time.monotonic() - begun
            total += seconds
            print(f"{name:8} {seconds:6.1f} s", flush=True)
            # `predict` exits with 1 when an image cannot be read.
            if process.returncode and not (name == "predict" and process.stdout):
                sys.exit(f"{process.stdout[-2000:]}{process.stderr[-2000:]}")
            if name == "export":
                print("         " + "\n         ".join(process.stdout.splitlines()[-2:]))
        print(f"{'in all':8} {total:6.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
