"""When a run saves, and that training does not wait for it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.running import events_of, longer, new_run, start, train, wait_for
from trainer import loop
from trainer.checkpoint_writer import CheckpointWriter
from trainer.config import Config
from trainer.run import events as ev

pytestmark = pytest.mark.usefixtures("narrow_network")


def saved_steps(config: Config, runs_dir: Path) -> list[int]:
    """Where a run of three epochs of four steps saves beside its best."""
    run = train(longer(config, 3), runs_dir).run.run_dir
    return [event.step for event in events_of(run, ev.CheckpointSaved) if not event.best]


def never_best(config: Config, **checkpoint: object) -> Config:
    return config.model_copy(
        update={
            "eval": config.eval.model_copy(update={"every_epochs": 1000}),
            "checkpoint": config.checkpoint.model_copy(update={"every_s": 3600.0} | checkpoint),
        }
    )


def test_an_epoch_ends_with_a_save_unless_the_last_one_is_young(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = never_best(folder_config)
    assert saved_steps(config, tmp_path / "young") == []
    monkeypatch.setattr(loop, "_EPOCH_SAVE_AGE_S", 0.0)
    assert saved_steps(config, tmp_path / "old")[:2] == [4, 8]
    assert saved_steps(never_best(folder_config, every_epoch=False), tmp_path / "unwanted") == []


def test_training_does_not_wait_for_a_disk_that_does_not_answer(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, asked = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        asked.set()
        answers.wait(60)

    monkeypatch.setattr(CheckpointWriter, "_check_space", hang)
    run = new_run(longer(never_best(folder_config, every_s=0.01), 1000), tmp_path)
    thread = start(run)
    assert asked.wait(60)
    before = wait_for(run.run_dir, lambda view: view.step > 0).step
    wait_for(run.run_dir, lambda view: view.step > before + 20)
    assert events_of(run.run_dir, ev.CheckpointSaved) == []
    answers.set()
    thread.stop()
    assert thread.join(30)
    assert thread.exit_code == 0
