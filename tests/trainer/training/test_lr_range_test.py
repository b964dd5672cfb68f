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
from trainer.commands.find_lr import find_lr
from trainer.config.schema import Config
from trainer.data.batches.batches import Batch
from trainer.model.checkpoint import read_checkpoint
from trainer.model.checkpoint_folder import CheckpointFolder
from trainer.run.control import commands as cmd
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.result_events import LrRangeTested
from trainer.run.log.run_events import Acknowledged
from trainer.session import rate_trial, session
from trainer.training.build import build_trainer
from trainer.training.callbacks import NullCallbacks
from trainer.training.lr_range_test import range_test, suggest

pytestmark = pytest.mark.usefixtures("narrow_network")


def rates(number: int = 60) -> list[float]:
    return [1e-5 * 10 ** (6 * index / (number - 1)) for index in range(number)]


def test_the_suggestion_is_where_the_loss_falls_fastest() -> None:
    """A curve that falls around 0.01 and explodes from 1 on."""
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
def test_without_a_fall_nothing_is_suggested(losses: list[float], reason: str) -> None:
    rate, said = suggest(rates()[: len(losses)], losses)
    assert rate is None
    assert reason in said


@pytest.mark.parametrize(("depth", "noise", "found"), [(0.08, 0.002, True), (0.08, 0.05, False), (0.01, 0.0005, False)])
def test_a_valley_that_is_clear_of_the_noise_is_enough(depth: float, noise: float, found: bool) -> None:
    """Of a network that knows most already: the loss falls by some percent down to a rate of 0.01, and explodes behind."""
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
    assert (rate is not None) is found, reason
    assert not found or 1e-4 < (rate or 0.0) < 2e-2


@given(st.lists(st.floats(0.01, 100), min_size=0, max_size=80))
def test_any_curve_gets_an_answer(losses: list[float]) -> None:
    lrs = rates(100)[: len(losses)]
    rate, reason = suggest(lrs, losses)
    assert reason
    assert rate is None or min(lrs) * 0.5 <= rate <= max(lrs) * 2


def last_of(run: RunDir, step: int) -> dict[str, torch.Tensor]:
    return read_checkpoint(CheckpointFolder(run, keep=2).at(step)).tensors


@pytest.mark.parametrize("cache", ["ram", "none"])
def test_a_run_goes_on_as_if_no_rates_had_been_tried(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    """To the bit, also with workers that decode ahead, in the middle of an epoch."""
    monkeypatch.setattr(rate_trial, "range_test", functools.partial(range_test, steps=30))
    data = folder_config.data.model_copy(update={"cache": cache, "workers": 1, "flip": "random"})
    # Evaluations, in which no rates are tried, come late.
    rarely = folder_config.eval.model_copy(update={"every_epochs": 5})
    config = longer(folder_config.model_copy(update={"data": data, "eval": rarely}), 5)
    straight = train(config, tmp_path / "a").run.run_dir
    run = new_run(config, tmp_path / "b")
    thread = start(run)
    wait_for(run.run_dir, lambda view: view.step >= 1)
    thread.commands.send(find := cmd.FindLr())
    view = wait_for(run.run_dir, lambda view: find.command_id in view.acknowledged)
    assert view.acknowledged[find.command_id].ok, view.acknowledged[find.command_id]
    assert thread.join(120)
    (found,) = events_of(run.run_dir, LrRangeTested)
    assert 0 < found.step < 20
    assert len(found.lrs) == len(found.losses) > 20
    assert found.lrs == sorted(found.lrs)
    first, second = last_of(straight, 20), last_of(run.run_dir, 20)
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_rates_are_tried_before_any_run(make_config: ConfigMaker, tmp_path: Path) -> None:
    config = make_config("data.batch_size=32", "data.flip=random")
    found, warnings = find_lr(config, tmp_path / "runs", quiet)
    assert warnings == []
    assert found.suggestion is not None
    assert 1e-3 < found.suggestion < 1, "where digits are learned"
    assert not (tmp_path / "runs").exists(), "nothing is written"


def test_progress_stays_where_it_is_while_a_batch_is_awaited(folder_config: Config, tmp_path: Path) -> None:
    trainer = build_trainer(folder_config, tmp_path, NullCallbacks(), quiet, None).trainer
    epoch_of = trainer.batches.epoch

    def slow(epoch: int, first_step: int) -> Iterator[Batch | None]:
        for batch in epoch_of(epoch, first_step):
            yield from (None, batch)

    trainer.batches.epoch = slow  # type: ignore[method-assign]
    shares: list[float] = []
    range_test(trainer, shares.append, steps=5)
    assert shares == [0.0, 0.0, 0.0, 0.2, 0.2, 0.4, 0.4, 0.6, 0.6, 0.8]


def test_a_run_that_has_ended_tries_no_rates(folder_config: Config, tmp_path: Path) -> None:
    run = new_run(folder_config, tmp_path)
    thread = start(run, hold_open=True)
    wait_for(run.run_dir, lambda view: view.finish is not None)
    thread.commands.send(find := cmd.FindLr())
    view = wait_for(run.run_dir, lambda view: find.command_id in view.acknowledged)
    assert view.acknowledged[find.command_id].message == "all steps are done"


def test_rates_that_are_asked_for_in_an_evaluation_are_tried_after_it(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With small folders a run evaluates so often that a key would be refused half of the time."""
    monkeypatch.setattr(rate_trial, "range_test", functools.partial(range_test, steps=15))
    run = new_run(folder_config, tmp_path)
    thread = start(run)
    asked: dict[int, str] = {}
    poll = session.TrainingSession.poll

    def asking(self: session.TrainingSession, evaluating: float | None = None) -> None:
        step = self.trainer.state.step
        if evaluating is not None and step not in asked:
            thread.commands.send(key := cmd.FindLr())
            asked[step] = key.command_id
        poll(self, evaluating)

    monkeypatch.setattr(session.TrainingSession, "poll", asking)
    assert thread.join(60)
    answers = {event.command_id: event for event in events_of(run.run_dir, Acknowledged)}
    assert answers[asked[4]].ok
    assert [event.step for event in events_of(run.run_dir, LrRangeTested)] == [4]
    assert answers[asked[8]].message == "the run has ended meanwhile"
