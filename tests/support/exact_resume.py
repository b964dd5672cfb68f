"""Compares a run that is stopped several times inside epochs with an uninterrupted one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch

from tests.support.running import events_of, new_run, resumed_run, start, train, view_of
from trainer.config.schema import Config
from trainer.model.checkpoint import read_checkpoint
from trainer.model.checkpoint_folder import CheckpointFolder
from trainer.run.control.commands import Stop
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.run_events import Resumed, Warned
from trainer.session.session import TrainingSession


def check_that_stops_change_no_bit(config: Config, runs_dir: Path, *, stops: int = 3) -> None:
    """Train to the end twice, once with stops, and assert that the last checkpoints and the logs are equal."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # the order of sums could differ
    try:
        _check(config, runs_dir, stops)
    finally:  # else it applies to every later test of this process
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)


def _check(config: Config, runs_dir: Path, stops: int) -> None:
    straight = train(config, runs_dir).run.run_dir
    assert torch.are_deterministic_algorithms_enabled()
    total = view_of(straight).total_steps
    patched = _train_with_stops(config, runs_dir, [total * number // (stops + 1) for number in range(1, stops + 1)])
    views = [view_of(run_dir) for run_dir in (straight, patched)]
    assert [view.step for view in views] == [views[0].total_steps] * 2
    whole, pieced = (read_checkpoint(CheckpointFolder(r, keep=2).at(views[0].step)) for r in (straight, patched))
    assert whole.tensors.keys() == pieced.tensors.keys()
    assert all(torch.equal(tensor, pieced.tensors[name]) for name, tensor in whole.tensors.items())
    assert whole.meta | {"run": ""} == pieced.meta | {"run": ""}
    for name in ("train_loss", "train_accuracy", "lr", "eval_loss", "eval_accuracy"):
        assert getattr(views[0], name) == getattr(views[1], name), name
    slow_disk = "the last save is taking longer"
    warned = [
        [event.message for event in events_of(run_dir, Warned) if slow_disk not in event.message]
        for run_dir in (patched, straight)
    ]
    assert warned[0] == warned[1], warned


def _train_with_stops(config: Config, runs_dir: Path, stops: list[int]) -> RunDir:
    run = new_run(config, runs_dir)
    for step in stops:
        with _stopped_before(step):
            thread = start(run)
            assert thread.join(120)
        run = resumed_run(run.run_dir, runs_dir)
    thread = start(run)
    assert thread.join(120)
    assert [event.step for event in events_of(run.run_dir, Resumed)] == stops
    return run.run_dir


@contextmanager
def _stopped_before(step: int) -> Iterator[None]:
    """Stop a run of this process, as SIGTERM does, once it has done `step` steps."""
    poll = TrainingSession.poll

    def stopping(session: TrainingSession, evaluating: float | None = None) -> None:
        if evaluating is None and session.trainer.state.step == step:
            session._commands.send(Stop(reason="SIGTERM", exit_code=143))
        poll(session, evaluating)

    with mock.patch.object(TrainingSession, "poll", stopping):
        yield
