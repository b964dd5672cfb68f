"""The steps at which a run saves; training does not wait for saves."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.support.running import events_of, longer, new_run, start, train, wait_for
from tests.support.small_session import set_clock
from trainer.config.schema import Config
from trainer.run.log.result_events import CheckpointSaved
from trainer.session import saver
from trainer.session.checkpoint_writer import CheckpointWriter
from trainer.training import build, loop
from trainer.training.snapshot import Snapshot

pytestmark = pytest.mark.usefixtures("narrow_network")


def saved_steps(config: Config, runs_dir: Path, monkeypatch: pytest.MonkeyPatch, *, age_s: float) -> list[int]:
    """Steps whose state a run of three epochs of four steps saves, other than as its best.

    The last save is always `age_s` old: the clocks stand still, so that no machine is too slow.
    """
    taken: list[int] = []
    submit = CheckpointWriter.submit

    def recording(writer: CheckpointWriter, snapshot: Snapshot, *, pinned: bool = False, best: bool = False) -> None:
        if not best:
            taken.append(snapshot.step)
        submit(writer, snapshot, pinned=pinned, best=best)

    with monkeypatch.context() as patched:
        saved_at = set_clock(patched, build, saver)
        set_clock(patched, loop).now = saved_at.now + age_s
        patched.setattr(CheckpointWriter, "submit", recording)
        train(longer(config, 3), runs_dir)
    return taken


def never_best(config: Config, **checkpoint: object) -> Config:
    return config.model_copy(
        update={
            "eval": config.eval.model_copy(update={"every_epochs": 1000}),
            "checkpoint": config.checkpoint.model_copy(update={"every_s": 3600.0} | checkpoint),
        }
    )


def test_an_epoch_ends_with_a_save_unless_the_last_one_is_recent(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = never_best(folder_config)
    assert saved_steps(config, tmp_path / "young", monkeypatch, age_s=9.99) == []
    assert saved_steps(config, tmp_path / "old", monkeypatch, age_s=10.0) == [4, 8]
    unwanted = never_best(folder_config, every_epoch=False)
    assert saved_steps(unwanted, tmp_path / "unwanted", monkeypatch, age_s=10.0) == []


def test_training_does_not_wait_for_an_unresponsive_disk(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    responds, called = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        called.set()
        responds.wait(60)

    monkeypatch.setattr(CheckpointWriter, "_check_space", hang)
    run = new_run(longer(never_best(folder_config, every_s=0.01), 1000), tmp_path)
    thread = start(run)
    assert called.wait(60)
    before = wait_for(run.run_dir, lambda view: view.step > 0).step
    wait_for(run.run_dir, lambda view: view.step > before + 20)
    assert events_of(run.run_dir, CheckpointSaved) == []
    responds.set()
    thread.stop()
    assert thread.join(30)
    assert thread.exit_code == 0
