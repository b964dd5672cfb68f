"""The best state, the evaluation on test images, and early stopping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ConfigMaker, FolderMaker, TunedMaker
from tests.support.running import events_of, new_run, resumed_run, start, train, view_of, wait_for
from trainer.run.control import commands as cmd
from trainer.run.log.result_events import Evaluated
from trainer.training.best_checkpoint import BestCheckpoint
from trainer.training.loop import Trainer

pytestmark = pytest.mark.usefixtures("narrow_network")


def test_a_run_without_improvement_stops_early(tuned: TunedMaker, tmp_path: Path) -> None:
    # The weights hardly change, so the first evaluation stays the best.
    config = tuned("model.freeze=backbone", "optim.lr=1e-12", "train.epochs=50", "train.early_stop_epochs=2")
    run = train(config, tmp_path / "runs")
    view = view_of(run.run.run_dir)
    assert run.exit_code == 0
    assert view.finish is not None
    assert view.finish.reason == "stopped early"
    assert view.step == 4 + 8, "two epochs after the first; a slightly falling loss does not count"
    resumed = resumed_run(run.run.run_dir, tmp_path / "runs", "train.early_stop_epochs=4")
    thread = start(resumed)
    assert thread.join(60)
    assert view_of(run.run.run_dir).step == 4 + 16


def test_a_run_does_not_stop_early_before_everything_is_unfrozen(tuned: TunedMaker, tmp_path: Path) -> None:
    config = tuned(
        "optim.lr=1e-7", "train.epochs=50", "train.early_stop_epochs=1", "model.freeze=backbone", "model.unfreeze_after=4",
    )  # fmt: skip
    run = train(config, tmp_path / "runs").run.run_dir
    assert 4 * 5 <= view_of(run).step < 4 * 50


def test_a_run_stops_early_only_after_an_evaluation(tuned: TunedMaker, tmp_path: Path) -> None:
    frozen = ("model.freeze=backbone", "optim.lr=1e-12")
    config = tuned(*frozen, "train.epochs=60", "train.early_stop_epochs=2", "eval.every_epochs=4")
    view = view_of(train(config, tmp_path / "runs").run.run_dir)
    assert view.finish is not None
    assert view.finish.reason == "stopped early"
    assert view.step == 32, "directly after the second evaluation"


def test_patience_restarts_when_a_key_unfreezes_a_stage(make_config: ConfigMaker) -> None:
    class Schedule:
        steps_per_epoch = 4

    best = BestCheckpoint(step=4, accuracy=0.5, improved_step=4, evaluated_step=20)
    state: Any = type("State", (), {"schedule": Schedule, "best": best, "unfrozen_step": -1})
    trainer: Any = type("Loop", (), {"state": state, "config": make_config("train.early_stop_epochs=4")})
    stalled: Any = Trainer.__dict__["stalled"]
    assert stalled.fget(trainer)
    state.unfrozen_step = 18
    assert not stalled.fget(trainer)


def test_test_images_are_evaluated_with_the_weights_chosen_on_val(
    make_folder: FolderMaker, make_config: ConfigMaker, tmp_path: Path
) -> None:
    root = make_folder(splits=("train", "val", "test"))
    config = make_config("data.kind=imagefolder", f"data.root={root}", "train.epochs=6", "optim.lr=0.02")
    run = train(config, tmp_path / "runs").run.run_dir
    view = view_of(run)
    (tested,) = [event for event in view.evaluations if event.split == "test"]
    assert view.best is not None
    assert tested.step == view.best.step
    assert view.evaluations == sorted(view.evaluations, key=lambda event: event.step)


def test_an_evaluation_by_key_does_not_use_the_test_images_early(
    make_folder: FolderMaker, make_config: ConfigMaker, tmp_path: Path
) -> None:
    root = make_folder(splits=("train", "val", "test"))
    run = new_run(make_config("data.kind=imagefolder", f"data.root={root}", "train.epochs=60"), tmp_path / "runs")
    thread = start(run)
    wait_for(run.run_dir, lambda view: view.step >= 1)
    thread.commands.send(evaluation := cmd.Evaluate())
    wait_for(run.run_dir, lambda view: evaluation.command_id in view.acknowledged)
    thread.stop()
    assert thread.join(60)
    assert {event.split for event in events_of(run.run_dir, Evaluated)} == {"val"}
