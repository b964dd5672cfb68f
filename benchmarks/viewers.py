"""Cost of this program's viewers and of `wandb leet`: bytes sent, CPU, memory, seconds until shown, response time of the help.

    python -m benchmarks.viewers [--steps 100000] [--seconds 20] [--rounds 3] [--wandb COMMAND] [--screens FOLDER]

First a run that trains on all cores (the digits) is viewed by turns with `r18-tui attach`, with `--low-bandwidth`, and with leet,
which reads the files of our wandb sink (`run.sinks`). Then a finished run of `--steps` steps: seconds until the screen is still,
and the cost from then on. A step in its middle has a loss of 40, which is on the axis of a viewer that shows the whole run.
Terminals have 120x40 cells; CPU and memory are those of all processes of a viewer. Without the package wandb only our own viewers
are measured. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.attach import write_history
from benchmarks.slices import ENDLESS_DIGITS
from tests.support.pseudo_terminal import PseudoTerminal
from trainer.config.loader import load_config, to_yaml
from trainer.run.folder.run_dir import RunDir
from trainer.trackers.relay import relay_log

_SPIKE = re.compile(r"\b(4\d|3[5-9])(\.\d+)?\b")
"""A label of an axis that reaches a loss of 40."""

_STILL_S = 1.5
"""A screen without changes for this time is complete."""
_HELP_TIMES = 10


@dataclass(frozen=True)
class Cost:
    """Cost of a viewer with all its processes.

    Attributes:
        kib_per_s: Sent to the terminal.
        cpu: In cores.
        rss_bytes: Resident memory.
    """

    kib_per_s: float
    cpu: float
    rss_bytes: int


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000, help="of the finished run, in whole thousands")
    parser.add_argument("--seconds", type=float, default=20.0, help="of measuring each viewer")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each viewer")
    parser.add_argument(
        "--wandb", default=shutil.which("wandb", path=str(Path(sys.executable).parent)), help="the command"
    )
    parser.add_argument("--screens", type=Path, help="folder for the screens as text")
    given = parser.parse_args()
    if given.screens:
        given.screens.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        _while_training(Path(folder), given)
    with tempfile.TemporaryDirectory() as folder:
        _after_the_end(Path(folder), given)
    return 0


def _while_training(runs_dir: Path, given: argparse.Namespace) -> None:
    with _training(runs_dir, sinks=given.wandb is not None) as run:
        viewers = {
            "attach": _own_viewer("attach", run),
            "attach --low-bandwidth": _own_viewer("attach", run, "--low-bandwidth"),
        }
        if given.wandb:
            viewers["wandb leet"] = [given.wandb, "leet", str(_wandb_folder(run))]
        costs: dict[str, list[Cost]] = {name: [] for name in viewers}
        for _ in range(given.rounds):
            for name, command in viewers.items():
                with PseudoTerminal(command) as terminal:
                    terminal.wait_for(r"[Ll]oss", 60)
                    terminal.bytes_per_s(5)
                    costs[name].append(_cost(terminal, given.seconds))
                    _keep_screen(terminal, given.screens, f"live {name}")
        for name, of_viewer in costs.items():
            print(f"a run that trains, {name}: {_summary(of_viewer)}", flush=True)


def _after_the_end(runs_dir: Path, given: argparse.Namespace) -> None:
    log = write_history(runs_dir, given.steps, spike=given.steps // 2)
    run = RunDir(log.parent)
    run.config.write_text(to_yaml(load_config("digits").config))
    viewers = {"show": _own_viewer("show", run)}
    if given.wandb:
        relay_log(run, "wandb", lambda: True)
        viewers["wandb leet"] = [given.wandb, "leet", str(_wandb_folder(run))]
    costs: dict[str, list[Cost]] = {name: [] for name in viewers}
    opened: dict[str, list[float]] = {name: [] for name in viewers}
    spikes: dict[str, bool] = {}
    for _ in range(given.rounds):
        for name, command in viewers.items():
            with PseudoTerminal(command) as terminal:
                opened[name].append(_until_still(terminal))
                costs[name].append(_cost(terminal, given.seconds / 2))
                spikes[name] = _SPIKE.search(terminal.text) is not None
                _keep_screen(terminal, given.screens, f"ended {name}")
    with PseudoTerminal(viewers["show"]) as terminal:
        _until_still(terminal)
        print(_help_summary(terminal), flush=True)
    for name, of_viewer in costs.items():
        start = f"shown after {statistics.median(opened[name]):.2f} s, the spike is {'' if spikes[name] else 'not '}on its axis"
        print(f"a run of {given.steps:,} steps, {name}: {start}; then {_summary(of_viewer)}", flush=True)


def _own_viewer(command: str, run: RunDir, *options: str) -> list[str]:
    return [sys.executable, "-m", "tui.cli", command, str(run.path), *options]


@contextmanager
def _training(runs_dir: Path, *, sinks: bool) -> Iterator[RunDir]:
    """A headless run, from its first checkpoint on."""
    sink_settings = ["run.sinks=[wandb]"] if sinks else []
    command = [
        sys.executable, "-m", "trainer", *ENDLESS_DIGITS, "run.convolution=products", "checkpoint.every_s=5", *sink_settings,
        "--runs-dir", str(runs_dir),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    run = RunDir(runs_dir / "digits")
    try:
        _wait(lambda: any((run.path / "checkpoints").glob("step-*")), 180)
        if sinks:
            _wait(lambda: any(run.sinks.glob("wandb/wandb/*run-*/*.wandb")), 120)
            time.sleep(10)
        yield run
    finally:
        process.terminate()
        process.wait(60)


def _wandb_folder(run: RunDir) -> Path:
    return next(run.sinks.glob("wandb/wandb/*run-*"))


def _wait(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the run did not begin")
        time.sleep(0.2)


def _cost(terminal: PseudoTerminal, seconds: float) -> Cost:
    before, began = _cpu_s(terminal.pid), time.monotonic()
    wire = terminal.bytes_per_s(seconds)
    spent, passed = _cpu_s(terminal.pid) - before, time.monotonic() - began
    rss = sum(process.memory_info().rss for process in _processes(terminal.pid))
    return Cost(wire / 1024, spent / passed, rss)


def _processes(pid: int) -> list[psutil.Process]:
    top = psutil.Process(pid)
    return [top, *top.children(recursive=True)]


def _cpu_s(pid: int) -> float:
    total = 0.0
    for process in _processes(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _until_still(terminal: PseudoTerminal) -> float:
    """Seconds from the start to the last change of the screen."""
    changed = terminal.wait_for(r"[Ll]oss", 120)
    size = len(terminal.raw)
    while time.monotonic() - terminal.started < changed + _STILL_S:
        terminal.pump(0.05)
        if len(terminal.raw) != size:
            size, changed = len(terminal.raw), time.monotonic() - terminal.started
    return changed


def _help_summary(terminal: PseudoTerminal) -> str:
    """Milliseconds until the help of an idle viewer opens and closes."""
    opened, closed = [], []
    for _ in range(_HELP_TIMES):
        time.sleep(1.0)
        opened.append(terminal.echo("?", "esc closes"))
        terminal.quiet()
        closed.append(terminal.echo("\x1b"))
        terminal.quiet()
    milliseconds = [f"{statistics.median(times):.0f} ms (worst {max(times):.0f})" for times in (opened, closed)]
    return f"in an idle viewer the help opens after {milliseconds[0]}, esc closes it after {milliseconds[1]}"


def _summary(costs: Sequence[Cost]) -> str:
    wire, cpu = [cost.kib_per_s for cost in costs], [100 * cost.cpu for cost in costs]
    memory = max(cost.rss_bytes for cost in costs) / 1e6
    return (
        f"{statistics.median(wire):.2f} KiB/s ({min(wire):.2f} to {max(wire):.2f}), "
        f"{statistics.median(cpu):.1f} % of a core ({min(cpu):.1f} to {max(cpu):.1f}), {memory:.0f} MB"
    )


def _keep_screen(terminal: PseudoTerminal, folder: Path | None, name: str) -> None:
    if folder is not None:
        (folder / f"{name.replace(' ', '-')}.txt").write_text(terminal.text)


if __name__ == "__main__":
    sys.exit(main())
