"""Kills trainers at random moments, resumes their runs, and compares the final states with an uninterrupted run."""

from __future__ import annotations

import contextlib
import csv
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from trainer.errors import DamagedCheckpointError, R18Error
from trainer.model.checkpoint import file_name, read_checkpoint
from trainer.model.checkpoint_folder import CheckpointFolder
from trainer.run.folder.run_config import read_run_config
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.reader import LogReader
from trainer.run.log.result_events import CheckpointSaved, Steps
from trainer.run.log.run_events import Resumed
from trainer.run.view.fold import apply
from trainer.run.view.run_view import RunView

_LONGEST_LIFE_S = 9.0
_END_S = 300.0
_COMPARED = (
    "step", "epoch", "epoch_step", "epoch_sums", "evaluation_due", "lr_edits", "best_accuracy", "best_loss",
    "best_step", "unfrozen_by_key", "improved_step", "last_evaluation", "classes", "fingerprint", "mean", "std",
)  # fmt: skip
"""The metadata of a checkpoint that training determines."""


@dataclass
class Findings:
    """Results of the kills.

    Attributes:
        kills: Number of kills by the run's activity.
        runs: Number of completed runs.
        lost_steps: After each kill, the steps between the last one in the log and the newest checkpoint.
        broken: Violated promises.
    """

    kills: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    lost_steps: list[int] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def kill_and_resume(
    run: Sequence[str], folder: Path, *, kills: int, seed: int, longest_life_s: float = _LONGEST_LIFE_S,
    from_first_step: bool = False,
) -> Findings:  # fmt: skip
    """Kill and resume runs until there were `kills` kills, then let the last run end.

    Args:
        run: Configuration and overrides for `python -m trainer`.
        folder: Folder of the runs.
        kills: Number of kills.
        seed: Seed of the moments of the kills.
        longest_life_s: Longest life of a process that is not to be killed while it writes a checkpoint.
        from_first_step: Count a life from the first step of the process instead of its start.
    """
    moments = random.Random(seed)
    reference = RunDir(folder / "reference")
    findings = Findings()
    _to_the_end([*run, "--name", reference.name, "--runs-dir", str(folder)], findings)
    while sum(findings.kills.values()) < kills:
        killed = RunDir(folder / f"killed-{findings.runs}")
        arguments = [*run, "--name", killed.name, "--runs-dir", str(folder)]
        while sum(findings.kills.values()) < kills:
            moment = _Moment(moments.uniform(0.2, longest_life_s), moments.random() < 0.3, from_first_step)
            if not _kill_once(arguments, killed, moment, findings):
                break
            if killed.events.exists():
                arguments = ["--resume", str(killed.path)]
            elif killed.path.exists():
                shutil.rmtree(killed.path)  # no run yet; frees its name for the next attempt
        if not _ended(killed):
            _to_the_end(arguments, findings)
        _compare(reference, killed, findings)
        findings.runs += 1
    return findings


def _process(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "trainer", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _to_the_end(arguments: Sequence[str], findings: Findings) -> None:
    process = _process(arguments)
    try:
        code = process.wait(_END_S)
    finally:
        process.kill()
    if code:
        findings.broken.append(f"{' '.join(arguments)} ended with {code}")


def _half_written(run: RunDir) -> set[tuple[int, int]]:
    """Checkpoints under temporary names, by inode and time, to distinguish those that an earlier kill left."""
    files = set()
    for path in run.checkpoints.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            files.add((status.st_ino, status.st_mtime_ns))
    return files


@dataclass(frozen=True)
class _Moment:
    """The moment at which a process is killed.

    Attributes:
        life_s: Seconds after its start, or after its first step with `from_first_step`.
        half_written: Kill it as soon as a checkpoint is half written instead.
    """

    life_s: float
    half_written: bool
    from_first_step: bool


def _kill_once(arguments: Sequence[str], run: RunDir, moment: _Moment, findings: Findings) -> bool:
    """Start a process and kill it; False if it ended before."""
    log, left = LogReader(run.events), _half_written(run)
    before = sum(map(len, iter(log.read, [])))
    process = _process(arguments)
    while moment.from_first_step and process.poll() is None:
        if any(isinstance(record.event, Steps) for record in log.records()):
            break
        time.sleep(0.002)
    until = time.monotonic() + (_END_S if moment.half_written else moment.life_s)
    while time.monotonic() < until and process.poll() is None:
        if moment.half_written and _half_written(run) - left:
            break
        time.sleep(0.002)
    if process.poll() is not None:
        if process.returncode != 0:
            findings.broken.append(f"{run.name}: {' '.join(arguments)} ended with {process.returncode}")
        return False
    process.kill()
    process.wait()
    half = bool(_half_written(run) - left)
    findings.kills[_inspect(run, before, findings) + (", checkpoint half written" if half else "")] += 1
    return True


def _inspect(run: RunDir, before: int, findings: Findings) -> str:
    """Check a killed run's directory; returns the run's activity when it was killed."""
    if not run.events.exists():
        return "before its log began"
    records = list(LogReader(run.events).records())
    view = RunView()
    for record in records:
        apply(view, record)
    resumed = any(isinstance(record.event, Resumed) for record in records[before:])
    folder = CheckpointFolder(run, keep=2)
    for step in folder.steps():
        try:
            read_checkpoint(folder.at(step))
        except DamagedCheckpointError as error:
            findings.broken.append(f"half written under its final name: {error}")
    newest = max(folder.steps(), default=0)
    saved = [record.event.step for record in records if isinstance(record.event, CheckpointSaved)]
    if saved and newest < saved[-1]:
        findings.broken.append(f"{run.name}: step {saved[-1]} was reported as saved, the newest checkpoint is {newest}")
    latest = folder.pointer("latest")
    if saved and (latest is None or latest.name < file_name(saved[-1])):
        findings.broken.append(f"{run.name}: latest points to {latest}, step {saved[-1]} was reported as saved")
    _check_tables(run, findings)
    findings.lost_steps.append(max(view.step - newest, 0))
    if len(records) <= before:
        return "before it wrote anything"
    return view.state.value + (" after a resume" if resumed else "")


def _check_tables(run: RunDir, findings: Findings) -> None:
    """Check that no other file is half written under its final name."""
    try:
        read_run_config(run)
        if run.results.exists():
            rows = list(csv.reader(run.results.read_text().splitlines(), strict=True))
            if len({len(row) for row in rows}) != 1:
                findings.broken.append(f"{run.results}: its rows have different lengths")
        for table in run.evaluation.glob("*/*.csv"):
            list(csv.reader(table.read_text().splitlines(), strict=True))
    except (R18Error, csv.Error, UnicodeDecodeError) as error:
        findings.broken.append(f"half written under its final name: {error}")


def _ended(run: RunDir) -> bool:
    view = RunView()
    for record in LogReader(run.events).records():
        apply(view, record)
    return view.finish is not None and view.finish.reason == "completed"


def _compare(reference: RunDir, killed: RunDir, findings: Findings) -> None:
    """Compare a killed run with the uninterrupted one: weights, momentum, statistics and logged values."""
    views = []
    for run in (reference, killed):
        view = RunView()
        for record in LogReader(run.events).records():
            apply(view, record)
        views.append(view)
    total = views[0].total_steps
    whole, patched = (read_checkpoint(CheckpointFolder(run, keep=2).at(total)) for run in (reference, killed))
    different = [
        name for name, tensor in whole.tensors.items() if not torch.equal(tensor, patched.tensors.get(name, tensor + 1))
    ]
    different += sorted(set(patched.tensors) - set(whole.tensors))
    different += [f"metadata {key}" for key in _COMPARED if whole.meta[key] != patched.meta[key]]
    for name in ("train_loss", "train_accuracy", "lr", "eval_loss", "eval_accuracy"):
        if getattr(views[0], name) != getattr(views[1], name):
            different.append(f"logged {name}")
    if different:
        findings.broken.append(f"{killed.name} differs from the uninterrupted run: {', '.join(different[:8])}")
