"""The learning rate range test: its suggestion, and runs that are not affected by it."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ConfigMaker
from tests.support.progress import quiet
from tests.support.running import events_of, longer, new_run, start, train, wait_for
from trainer.commands.lr_range import find_lr
from trainer.config.schema import Config
from trainer.data.batches.batches import Batch
from trainer.model.checkpoint import read_checkpoint
from trainer.model.checkpoint_folder import CheckpointFolder
from trainer.run.control import commands as cmd
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.result_events import LrRangeTested
from trainer.run.log.run_events import Acknowledged
from trainer.session import lr_range_trial, session
from trainer.training.build import build_trainer
from trainer.training.callbacks import LoopCallbacks
from trainer.training.lr_range_test import range_test, suggest

pytestmark = pytest.mark.usefixtures("narrow_network")


def rates(number: int = 60) -> list[float]:
    return [1e-5 * 10 ** (6 * index / (number - 1)) for index in range(number)]


def test_the_suggestion_is_where_the_loss_falls_fastest() -> None:
    """For a curve that falls around 0.01 and explodes from 1 on."""
    lrs = rates()
    losses = [2.0 - 1.5 / (1 + math.exp(-4 * (math.log10(lr) + 2))) + max(0.0, 3 * math.log10(lr) + 0.5) for lr in lrs]
    rate, reason = suggest(lrs, losses)
    assert rate is not None
    assert 0.006 <= rate <= 0.02
    assert "falls fastest at about 0.01, is lowest at 0." in reason
    assert reason.endswith("and rises from there")


@pytest.mark.parametrize(
    ("losses", "reason"),
    [
        ([2.0 + 0.01 * n for n in range(60)], "fell at none of the rates"),
        ([2.0] * 60, "fell at none"),
        ([2.0 - 0.002 * n for n in range(60)], "the loss changed too little to suggest a rate: from 1.99 to 1.88"),
        ([2.0, 9.0], "exploded after 2"),
    ],
)
def test_nothing_is_suggested_without_a_falling_loss(losses: list[float], reason: str) -> None:
    rate, given_reason = suggest(rates()[: len(losses)], losses)
    assert rate is None
    assert reason in given_reason


@pytest.mark.parametrize(
    ("depth", "noise", "suggested"), [(0.08, 0.002, True), (0.08, 0.05, False), (0.01, 0.0005, False)]
)
def test_a_valley_above_the_noise_gives_a_suggestion(depth: float, noise: float, suggested: bool) -> None:
    """A pretrained network: the loss falls by a few percent until a rate of 0.01 and then explodes."""
    draw = random.Random(0)
    lrs = rates(100)
    losses = [
        2.0
        + draw.gauss(0.0, noise)
        - depth * math.exp(-((math.log10(lr) + 2) ** 2))
        + max(0.0, math.log10(lr) + 1) ** 2
        for lr in lrs
    ]
    rate, reason = suggest(lrs, losses)
    assert (rate is not None) is suggested, reason
    assert not suggested or 1e-4 < (rate or 0.0) < 2e-2


@given(st.lists(st.floats(0.01, 100), min_size=0, max_size=80))
def test_any_curve_gives_a_reason(losses: list[float]) -> None:
    lrs = rates(100)[: len(losses)]
    rate, reason = suggest(lrs, losses)
    assert reason
    assert rate is None or min(lrs) * 0.5 <= rate <= max(lrs) * 2


def last_of(run: RunDir, step: int) -> dict[str, torch.Tensor]:
    return read_checkpoint(CheckpointFolder(run, keep=2).at(step)).tensors


@pytest.mark.parametrize("cache", ["ram", "none"])
def test_a_run_continues_unchanged_after_a_range_test(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    """Bit for bit, also in the middle of an epoch with workers that decode ahead."""
    monkeypatch.setattr(lr_range_trial, "range_test", functools.partial(range_test, steps=30))
    data = folder_config.data.model_copy(update={"cache": cache, "workers": 1, "flip": "random"})
    # Evaluations, during which no range test is possible, come late.
    rarely = folder_config.eval.model_copy(update={"every_epochs": 5})
    config = longer(folder_config.model_copy(update={"data": data, "eval": rarely}), 5)
    straight = train(config, tmp_path / "a").run.run_dir
    run = new_run(config, tmp_path / "b")
    thread = start(run)
    wait_for(run.run_dir, lambda view: view.step >= 1)
    thread.commands.send(command := cmd.FindLr())
    view = wait_for(run.run_dir, lambda view: command.command_id in view.acknowledged)
    assert view.acknowledged[command.command_id].ok, view.acknowledged[command.command_id]
    assert thread.join(120)
    (result,) = events_of(run.run_dir, LrRangeTested)
    assert 0 < result.step < 20
    assert len(result.lrs) == len(result.losses) > 20
    assert result.lrs == sorted(result.lrs)
    first, second = last_of(straight, 20), last_of(run.run_dir, 20)
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_find_lr_needs_no_run(make_config: ConfigMaker, tmp_path: Path) -> None:
    config = make_config("data.batch_size=32", "data.flip=random")
    result, warnings = find_lr(config, tmp_path / "runs", quiet)
    assert warnings == []
    assert result.suggestion is not None
    assert 1e-3 < result.suggestion < 1, "suitable for the digits"
    assert not (tmp_path / "runs").exists(), "nothing is written"


def test_progress_does_not_advance_while_waiting_for_a_batch(folder_config: Config, tmp_path: Path) -> None:
    trainer = build_trainer(folder_config, tmp_path, LoopCallbacks(), quiet, None).trainer
    epoch_of = trainer.batches.epoch

    def slow(epoch: int, first_step: int) -> Iterator[Batch | None]:
        for batch in epoch_of(epoch, first_step):
            yield from (None, batch)

    trainer.batches.epoch = slow  # type: ignore[method-assign]
    shares: list[float] = []
    range_test(trainer, shares.append, steps=5)
    assert shares == [0.0, 0.0, 0.0, 0.2, 0.2, 0.4, 0.4, 0.6, 0.6, 0.8]


def test_an_ended_run_refuses_a_range_test(folder_config: Config, tmp_path: Path) -> None:
    run = new_run(folder_config, tmp_path)
    thread = start(run, hold_open=True)
    wait_for(run.run_dir, lambda view: view.finish is not None)
    thread.commands.send(command := cmd.FindLr())
    view = wait_for(run.run_dir, lambda view: command.command_id in view.acknowledged)
    assert view.acknowledged[command.command_id].message == "all steps are done"


def test_a_range_test_requested_during_an_evaluation_follows_it(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With small folders, a run evaluates so often that a key would often be refused."""
    monkeypatch.setattr(lr_range_trial, "range_test", functools.partial(range_test, steps=15))
    run = new_run(folder_config, tmp_path)
    thread = start(run)
    requested: dict[int, str] = {}
    poll = session.TrainingSession.poll

    def request_and_poll(self: session.TrainingSession, evaluating: float | None = None) -> None:
        step = self.trainer.state.step
        if evaluating is not None and step not in requested:
            thread.commands.send(key := cmd.FindLr())
            requested[step] = key.command_id
        poll(self, evaluating)

    monkeypatch.setattr(session.TrainingSession, "poll", request_and_poll)
    assert thread.join(60)
    answers = {event.command_id: event for event in events_of(run.run_dir, Acknowledged)}
    assert answers[requested[4]].ok
    assert [event.step for event in events_of(run.run_dir, LrRangeTested)] == [4]
    assert answers[requested[8]].message == "the run has ended meanwhile"
