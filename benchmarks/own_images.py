"""How long it takes from a folder of pictures to a checked ONNX file: `init`, a run, `export`, `predict`, as a user types them.

    python -m benchmarks.own_images FOLDER [--init-from WHAT] [KEY=VALUE ...]

FOLDER holds class folders. Everything is written into a temporary folder.
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
            done = subprocess.run(
                [sys.executable, "-c", _PROGRAM, *command], cwd=scratch, capture_output=True, text=True
            )
            seconds = time.monotonic() - begun
            total += seconds
            print(f"{name:8} {seconds:6.1f} s", flush=True)
            # A picture that cannot be read makes `predict` say so with 1.
            if done.returncode and not (name == "predict" and done.stdout):
                sys.exit(f"{done.stdout[-2000:]}{done.stderr[-2000:]}")
            if name == "export":
                print("         " + "\n         ".join(done.stdout.splitlines()[-2:]))
        print(f"{'in all':8} {total:6.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
