"""Changes of a live run's plan: its length, and when it is evaluated and saved."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.running import events_of, new_run, resumed_run, start, view_of, wait_for
from trainer.config.loader import put_setting
from trainer.config.schema import Config
from trainer.errors import ConfigError
from trainer.model.checkpoint import read_checkpoint
from trainer.model.checkpoint_folder import CheckpointFolder
from trainer.run.control import commands as cmd
from trainer.run.folder.run_config import read_run_config
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.run_events import SettingsChanged
from trainer.run.status import RunState
from trainer.session.run_edits import apply_plan, changed_config
from trainer.training.build import build_trainer
from trainer.training.callbacks import LoopCallbacks
from trainer.training.loop import Trainer

pytestmark = pytest.mark.usefixtures("narrow_network")


@pytest.fixture
def trainer(folder_config: Config) -> Trainer:
    """The trainer of ten epochs of four steps; its rate rises for two epochs and then falls to 0."""
    config = folder_config.model_copy(update={"train": folder_config.train.model_copy(update={"epochs": 10})})
    return build_trainer(config, Path("runs"), LoopCallbacks(), lambda *_: None, None).trainer


@pytest.mark.parametrize("epochs", [5, 11, 100])
def test_the_rate_after_a_change_is_that_of_the_new_length_with_edits(trainer: Trainer, epochs: int) -> None:
    trainer.state.step = 18
    schedule = trainer.state.schedule
    schedule.edit(12, 0.5)
    expected = dataclasses.replace(schedule, epochs=epochs, shortest=min(schedule.epochs, epochs))
    apply_plan(changed_config(trainer.config, {"train.epochs": epochs}, trainer), trainer)
    assert [schedule.at(step) for step in range(18, 4 * epochs)] == [
        expected.at(step) for step in range(18, 4 * epochs)
    ]
    apply_plan(changed_config(trainer.config, {"train.epochs": 10}, trainer), trainer)
    assert schedule.at(18) == 0.5 * schedule.planned(18), "the change back restores the rate"


def test_only_the_plan_can_be_changed(trainer: Trainer) -> None:
    with pytest.raises(ConfigError, match=r"optim\.lr cannot be changed .* train\.epochs, eval\.every_epochs"):
        changed_config(trainer.config, {"optim.lr": 0.1}, trainer)
    with pytest.raises(ConfigError, match=r"checkpoint\.every_s"):
        changed_config(trainer.config, {"checkpoint.every_s": -1}, trainer)
    with pytest.raises(ConfigError, match=r"eval\.every_epochs: expected numbers of at most"):
        changed_config(trainer.config, {"eval.every_epochs": 10**18}, trainer)
    trainer.state.step = 17
    with pytest.raises(ConfigError, match="epoch 5 is running"):
        changed_config(trainer.config, {"train.epochs": 4}, trainer)
    assert changed_config(trainer.config, {"train.epochs": 5}, trainer).train.epochs == 5


def test_settings_by_dotted_key_become_groups() -> None:
    values: dict[str, Any] = {}
    for key, value in {"a.b": 1, "a.c": 2, "d.e": 3}.items():
        put_setting(values, key, value)
    assert values == {"a": {"b": 1, "c": 2}, "d": {"e": 3}}


def test_an_extended_run_ends_later_and_resumes_bit_for_bit(folder_config: Config, tmp_path: Path) -> None:
    config = folder_config.model_copy(
        update={
            "train": folder_config.train.model_copy(update={"epochs": 12}),
            "checkpoint": folder_config.checkpoint.model_copy(update={"keep": 50}),
            "run": folder_config.run.model_copy(update={"deterministic": True}),
        }
    )
    threads = torch.get_num_threads()
    try:
        run = new_run(config, tmp_path)
        thread = start(run)
        wait_for(run.run_dir, lambda view: view.step >= 12)
        thread.commands.send(cmd.Pause())
        held = wait_for(run.run_dir, lambda view: view.state is RunState.PAUSED)
        thread.commands.send(cmd.ChangeSettings(settings={"train.epochs": 14, "eval.every_epochs": 5}))
        thread.commands.send(cmd.SaveCheckpoint())
        thread.commands.send(cmd.Unpause())
        assert thread.join(120)
        view = view_of(run.run_dir)
        assert (view.step, view.total_steps, view.plan["train.epochs"]) == (56, 56, 14)
        later = [event.epoch for event in view.evaluations if event.step > held.step]
        assert later == [epoch for epoch in (5.0, 10.0, 14.0) if 4 * epoch > held.step]
        assert read_run_config(run.run_dir).train.epochs == 14
        [changed] = events_of(run.run_dir, SettingsChanged)
        assert changed.changes == ["train.epochs 12 -> 14", "eval.every_epochs 1 -> 5"]
        assert changed.step == held.step

        folder = CheckpointFolder(run.run_dir, keep=50)
        whole = read_checkpoint(folder.at(56))
        again = tmp_path / "again"
        shutil.copytree(run.run_dir.path, again)
        second = resumed_run(RunDir(again), tmp_path)
        copy = CheckpointFolder(second.run_dir, keep=50)
        for step in copy.steps():
            if step > changed.step:
                copy.at(step).unlink()
        thread = start(second)
        assert thread.join(120)
        pieced = read_checkpoint(copy.at(56))
        assert all(torch.equal(tensor, pieced.tensors[name]) for name, tensor in whole.tensors.items())
        assert view_of(second.run_dir).lr == view.lr
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)


def test_the_plan_of_an_ended_run_cannot_be_changed(folder_config: Config, tmp_path: Path) -> None:
    run = new_run(folder_config, tmp_path)
    thread = start(run, hold_open=True)
    wait_for(run.run_dir, lambda view: view.finish is not None)
    change = cmd.ChangeSettings(settings={"train.epochs": 9})
    thread.commands.send(change)
    view = wait_for(run.run_dir, lambda view: change.command_id in view.acknowledged)
    assert view.acknowledged[change.command_id].message == "all steps are done"
