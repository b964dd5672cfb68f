"""Failures during a run: what is lost, what is saved, and what the message advises."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.running import events_of, new_run, start, train, view_of, wait_for
from trainer.config.schema import Config
from trainer.data.batches.batches import Batch
from trainer.data.batches.resident import ResidentBatches
from trainer.errors import EXIT_RESUMABLE
from trainer.evaluation.evaluate import Evaluation, evaluate
from trainer.model.checkpoint import file_name, read_checkpoint
from trainer.model.checkpoint_folder import CheckpointFolder
from trainer.model.resnet import losses_of
from trainer.run.control import commands as cmd
from trainer.run.folder.lock import is_live
from trainer.run.log.event import Event
from trainer.run.log.run_events import StateChanged, Warned
from trainer.run.status import RunState
from trainer.session.training_thread import TrainingThread

pytestmark = pytest.mark.usefixtures("narrow_network")


def test_a_non_finite_loss_stops_the_run_and_is_never_saved(folder_config: Config, tmp_path: Path) -> None:
    config = folder_config.model_copy(
        update={
            "optim": folder_config.optim.model_copy(update={"lr": 1000.0}),
            "train": folder_config.train.model_copy(update={"epochs": 60}),
        }
    )
    thread = train(config, tmp_path)
    view = view_of(thread.run.run_dir)
    assert thread.exit_code == 1
    assert view.failure is not None
    assert "NaN or infinite loss or gradient (learning rate" in view.failure.error
    assert "lower optim.lr" in view.failure.error
    folder = CheckpointFolder(thread.run.run_dir, keep=2)
    for step in folder.steps():
        assert all(bool(torch.isfinite(t).all()) for t in read_checkpoint(folder.at(step)).tensors.values())


@pytest.mark.parametrize(
    ("error", "advice", "saved"),
    [
        (
            "CUDA out of memory. Tried to allocate 2.00 GiB",
            "lower eval.batch_size",
            6,
        ),  # the state is still that of step 6
        ("CUDA error: device-side assert triggered", "device-side assert", 4),  # the state may be corrupt
    ],
)
def test_an_error_of_the_training_thread_is_reported_with_advice(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str, advice: str, saved: int
) -> None:
    from trainer.training.step import TrainStep

    original, calls = TrainStep.__call__, [0]

    def failing(self: TrainStep, *args: object, **kwargs: object) -> None:
        calls[0] += 1
        if calls[0] == 7:
            raise RuntimeError(error)
        original(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(TrainStep, "__call__", failing)
    thread = train(folder_config, tmp_path)
    view = view_of(thread.run.run_dir)
    assert thread.exit_code == 1
    assert view.failure is not None
    assert advice in view.failure.error
    assert view.failure.checkpoint == file_name(saved)
    assert view.step <= 6, "the failed step has no metrics"
    assert view.failure.resume == f"r18-tui --resume {thread.run.run_dir.path}"
    assert error in thread.run.run_dir.log.read_text()


def test_a_trainer_that_waits_for_images_takes_commands(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch = ResidentBatches.epoch

    def stuck(self: ResidentBatches, number: int, first_step: int) -> Iterator[Batch | None]:
        yield next(epoch(self, number, first_step))
        while True:
            time.sleep(0.01)
            yield None

    monkeypatch.setattr(ResidentBatches, "epoch", stuck)
    thread = start(new_run(folder_config, tmp_path))
    wait_for(thread.run.run_dir, lambda view: view.state is RunState.TRAINING)
    time.sleep(0.5)
    thread.commands.send(save := cmd.SaveCheckpoint())
    view = wait_for(thread.run.run_dir, lambda view: save.command_id in view.acknowledged)
    assert view.step == 1
    thread.stop("SIGTERM", 143)
    assert thread.join(10)
    assert thread.exit_code == 143
    assert CheckpointFolder(thread.run.run_dir, keep=2).steps() == [1]


def test_an_evaluation_out_of_memory_is_retried_in_smaller_batches(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def small_memory(*given: Any, batch_size: int, **named: Any) -> Evaluation:
        sizes.append(batch_size)
        if batch_size > 16:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return evaluate(*given, batch_size=batch_size, **named)

    monkeypatch.setattr("trainer.training.interim_evaluation.evaluate", small_memory)
    thread = train(folder_config, tmp_path)
    assert thread.exit_code == 0
    assert sizes == [64, 32, 16, 16], "determined once for all evaluations of the run"
    assert any("16 images at a time" in note.text for note in view_of(thread.run.run_dir).notes)


def test_a_run_whose_images_disappear_saves_its_last_step(folder_config: Config, tmp_path: Path) -> None:
    """The folder disappears at the first evaluation and is restored before the resume."""
    data = folder_config.data.model_copy(update={"cache": "none", "workers": 0})
    root, away = Path(data.root), Path(data.root).with_name("away")
    run = new_run(folder_config.model_copy(update={"data": data}), tmp_path)
    thread, publish = TrainingThread(run, hold_open=False), run.log.publish

    def hide_images(event: Event) -> object:
        if isinstance(event, StateChanged) and event.state == "evaluating":
            run.log.publish = publish  # type: ignore[method-assign]
            root.rename(away)
        return publish(event)

    run.log.publish = hide_images  # type: ignore[method-assign, assignment]
    thread.start()
    assert thread.join(60)
    view = view_of(run.run_dir)
    assert thread.exit_code == EXIT_RESUMABLE
    assert view.failure is not None
    assert "restore the folder, then resume" in view.failure.error
    (step,) = CheckpointFolder(run.run_dir, keep=2).steps()
    assert (view.step, step) == (4, 4)
    away.rename(root)
    assert train(folder_config, tmp_path, resume=run.run_dir).exit_code == 0


def test_a_step_out_of_memory_is_retried_in_smaller_parts(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights equal those of a run with that many micro-batches from the start, and a resume keeps the number."""
    from trainer.training import step as step_module

    halves = folder_config.train.model_copy(update={"grad_accum_steps": 2})
    planned = train(folder_config.model_copy(update={"train": halves}), tmp_path).run.run_dir
    refused: list[int] = []

    def small_only(logits_NK: torch.Tensor, labels_N: torch.Tensor, *, label_smoothing: float) -> torch.Tensor:
        if len(labels_N) > 4:
            refused.append(len(labels_N))
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return losses_of(logits_NK, labels_N, label_smoothing=label_smoothing)

    monkeypatch.setattr(step_module, "losses_of", small_only)
    run = train(folder_config, tmp_path).run.run_dir
    assert refused == [8], "only once"
    (warning,) = [event.message for event in events_of(run, Warned) if "out of memory" in event.message]
    assert "at step 1: repeated. Batches are now split into 2 micro-batches" in warning
    whole, cut = (read_checkpoint(CheckpointFolder(r, keep=2).at(8)) for r in (planned, run))
    names = [name for name in whole.tensors if "num_batches" not in name]
    assert all(torch.equal(whole.tensors[name], cut.tensors[name]) for name in names)
    train(folder_config, tmp_path, resume=run, overrides=("train.epochs=3",))
    assert refused == [8], "a resume keeps that size"


def test_weights_ruined_by_the_last_step_are_not_reported_as_a_full_disk(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.training.step import TrainStep

    original, calls = TrainStep.__call__, [0]

    def spoiling(self: TrainStep, *args: object, **kwargs: object) -> None:
        original(self, *args, **kwargs)  # type: ignore[arg-type]
        calls[0] += 1
        if calls[0] == 8:
            next(self.model.parameters()).data.fill_(math.nan)

    monkeypatch.setattr(TrainStep, "__call__", spoiling)
    thread = train(folder_config, tmp_path)
    failure = view_of(thread.run.run_dir).failure
    assert thread.exit_code == 1
    assert failure is not None
    assert "the weights are NaN or infinite after step 8" in failure.error
    assert failure.checkpoint == "step-00000004.safetensors"


@pytest.mark.parametrize("after_the_end", [False, True])
def test_a_failed_evaluation_is_answered(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after_the_end: bool
) -> None:
    """It ends a training run and leaves a completed one unchanged."""
    from trainer.training import interim_evaluation

    epochs = folder_config.train.model_copy(update={"epochs": 2 if after_the_end else 5000})
    seldom = folder_config.eval.model_copy(update={"every_epochs": 1000})
    run = new_run(folder_config.model_copy(update={"train": epochs, "eval": seldom}), tmp_path)
    thread = start(run, hold_open=True)
    wait_for(run.run_dir, lambda view: view.state is RunState.FINISHED if after_the_end else view.step >= 2)

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(interim_evaluation, "evaluate", full)
    evaluation = cmd.Evaluate()
    thread.commands.send(evaluation)
    view = wait_for(run.run_dir, lambda view: evaluation.command_id in view.acknowledged)
    assert "out of memory" in view.acknowledged[evaluation.command_id].message
    thread.stop()
    assert thread.join(60)
    assert thread.exit_code == (0 if after_the_end else 1)
    assert view_of(run.run_dir).state is (RunState.FINISHED if after_the_end else RunState.FAILED)
    assert "Tried to allocate" in run.run_dir.log.read_text()


def test_an_ended_run_is_not_rolled_back(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(folder_config, tmp_path)
    thread = start(run, hold_open=True)
    wait_for(run.run_dir, lambda view: view.state is RunState.FINISHED)
    thread.commands.send(back := cmd.GoBack())
    view = wait_for(run.run_dir, lambda view: back.command_id in view.acknowledged)
    assert view.acknowledged[back.command_id].message == "the run has ended"
    thread.stop()
    assert thread.join(30)


@pytest.mark.parametrize("which", ["heartbeat", "training"])
def test_a_run_whose_thread_cannot_be_started_fails_with_the_reason(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    begin = threading.Thread.start

    def start_or_fail(thread: threading.Thread) -> None:
        if thread.name == which:
            raise RuntimeError("can't start new thread")
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_fail)
    thread = start(new_run(folder_config, tmp_path), hold_open=True)
    assert thread.join(10)
    assert not thread.alive
    assert thread.exit_code == 1
    view = view_of(thread.run.run_dir)
    assert view.failure is not None
    assert "can't start new thread" in view.failure.error
    assert not is_live(thread.run.run_dir)
