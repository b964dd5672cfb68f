"""Duration of an export from a run that trains, and the training speed meanwhile, with and without the export's niceness.

    python -m benchmarks.export_beside [--rounds 2] [CONFIG KEY=VALUE ...]

Trains in another process (the digits by default), measures its speed for some seconds, then exports over its control socket; with
and without niceness in turn. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.slices import ENDLESS_DIGITS
from trainer.run.control.client import SocketControl
from trainer.run.control.commands import Export
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.event import Event
from trainer.run.log.reader import LogReader
from trainer.run.log.result_events import Exported, ExportFailed, Steps

_TRAIN = "import sys; from trainer.cli import main; sys.exit(main(sys.argv[1:]))"
_EXPORT_AS_ANY = f"import os; os.nice = lambda by: 0; {_TRAIN}"
_WITHOUT = (
    "import sys, trainer.session.export_child as child; assert child.own_command; "
    f"child.own_command = lambda module, *given: [sys.executable, '-c', {_EXPORT_AS_ANY!r}, *given]; " + _TRAIN
)
_ALONE_S = 15.0
_LONGEST_S = 300.0


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("run", nargs="*", default=[*ENDLESS_DIGITS, "run.convolution=products"])
    arguments = parser.parse_args()
    for _ in range(arguments.rounds):
        for name, code in (("with its niceness", _TRAIN), ("without", _WITHOUT)):
            with tempfile.TemporaryDirectory() as folder:
                print(f"{name:18} {_measured(code, arguments.run, Path(folder))}", flush=True)
    return 0


def _measured(code: str, settings: list[str], folder: Path) -> str:
    command = [sys.executable, "-c", code, *settings, "--runs-dir", str(folder), "--name", "run"]
    run = RunDir(folder / "run")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        log = LogReader(run.events)
        _follow(log, lambda event: isinstance(event, Steps))
        end = time.monotonic() + _ALONE_S
        images, seconds = _follow(log, lambda _: time.monotonic() > end)
        alone = images / seconds
        SocketControl(run).send(Export())
        images, seconds = _follow(log, lambda event: isinstance(event, Exported | ExportFailed))
    finally:
        process.terminate()
        process.wait()
    return f"export {seconds:5.1f} s, training {images / seconds:4.0f} img/s meanwhile, {alone:4.0f} before"


def _follow(log: LogReader, enough: Callable[[Event], bool]) -> tuple[int, float]:
    """Images trained on until an event, and the seconds until then; SystemExit after `_LONGEST_S` or a failed export."""
    images, begun = 0, time.monotonic()
    while time.monotonic() - begun < _LONGEST_S:
        for record in log.records():
            images += record.event.images if isinstance(record.event, Steps) else 0
            if isinstance(record.event, ExportFailed):
                sys.exit(record.event.error)
            if enough(record.event):
                return images, time.monotonic() - begun
        time.sleep(0.1)
    sys.exit(f"nothing for {_LONGEST_S:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
