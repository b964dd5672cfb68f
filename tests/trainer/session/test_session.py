"""Whole sessions with the real network on tiny data."""

from __future__ import annotations

import contextlib
import csv
import math
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import ConfigMaker, FolderMaker
from tests.support.running import events_of, longer, new_run, start, train, view_of, wait_for
from trainer.config.schema import Config
from trainer.data.batches.batches import Batch
from trainer.data.batches.resident import ResidentBatches
from trainer.errors import EXIT_RESUMABLE
from trainer.evaluation.evaluate import Evaluation, evaluate
from trainer.model.checkpoint import file_name, read_checkpoint
from trainer.model.checkpoint_folder import CheckpointFolder
from trainer.model.resnet import losses_of
from trainer.run.control import commands as cmd
from trainer.run.control import server as control_socket
from trainer.run.control.client import SocketControl
from trainer.run.folder.lock import is_live, read_owner
from trainer.run.log.event import Event
from trainer.run.log.result_events import Evaluated
from trainer.run.log.run_events import Finished, StateChanged, Warned
from trainer.run.status import RunState
from trainer.session.session import TrainingSession
from trainer.session.training_thread import TrainingThread
from trainer.training.callbacks import LoopCallbacks

pytestmark = pytest.mark.usefixtures("narrow_network")


@pytest.mark.whole_network
def test_a_run_learns_and_writes_all_its_files(folder_config: Config, tmp_path: Path) -> None:
    slowly = folder_config.optim.model_copy(update={"lr": 0.002})  # at 0.05 eight steps are too few to settle
    thread = train(folder_config.model_copy(update={"optim": slowly}), tmp_path / "runs")
    run = thread.run.run_dir
    view = view_of(run)
    assert thread.exit_code == 0
    assert view.state is RunState.FINISHED
    assert view.step == view.total_steps == 8
    assert view.train_loss.y[0] > view.train_loss.y[-1]
    assert view.last_evaluation is not None
    assert view.last_evaluation.split == "test"
    assert view.last_evaluation.accuracy > 0.5
    with run.results.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["test/accuracy"]) == pytest.approx(view.last_evaluation.accuracy, abs=1e-6)
    assert (run.evaluation / "test" / "per_class.csv").read_text().count("\n") == 4
    assert (run.evaluation / "test" / "confusion.csv").exists()
    assert read_owner(run) is None, "the run is free again"
    folder = CheckpointFolder(run, keep=2)
    latest = folder.pointer("latest")
    assert latest == folder.at(8)
    assert folder.pointer("best") is not None
    meta = read_checkpoint(folder.at(8)).meta
    assert meta["classes"] == ["blue", "green", "red"]
    assert meta["preprocess"]["mean"] == meta["mean"]


def test_the_same_seed_gives_the_same_run_and_another_seed_does_not(
    folder_config: Config, tmp_path: Path, make_config: ConfigMaker
) -> None:
    other = folder_config.model_copy(update={"run": folder_config.run.model_copy(update={"seed": 1})})
    losses = [list(view_of(train(c, tmp_path).run.run_dir).train_loss.y) for c in (folder_config, folder_config, other)]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_a_run_without_a_socket_trains_with_a_warning(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> Path:
        raise PermissionError("/tmp/r18-tui-0 must be a folder that only this user may enter (mode 0700)")

    monkeypatch.setattr(control_socket, "private_folder", refuse)
    run = train(folder_config, tmp_path).run.run_dir
    assert view_of(run).state is RunState.FINISHED
    warnings = [event.message for event in events_of(run, Warned)]
    assert any("not control it" in warning and "mode 0700" in warning for warning in warnings), warnings


def test_invalid_input_of_clients_does_not_stop_a_trainer(folder_config: Config, tmp_path: Path) -> None:
    run = new_run(longer(folder_config, 5000), tmp_path / "runs")
    thread = start(run)
    before = wait_for(run.run_dir, lambda view: view.step > 0).step
    path = (read_owner(run.run_dir) or {})["socket"]
    for number in range(300):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client, contextlib.suppress(OSError):
            client.connect(path)
            client.sendall(b"{" * (number % 50) + b"\xff" * 2000 + b"\n")
    wait_for(run.run_dir, lambda view: view.step > before + 10)
    SocketControl(run.run_dir).send(cmd.Stop())
    assert thread.join(30)
    assert thread.exit_code == 0


def test_other_commands_act_during_a_pause(folder_config: Config, tmp_path: Path) -> None:
    # No evaluations at epochs: during one, another would be refused.
    config = folder_config.model_copy(
        update={
            "train": folder_config.train.model_copy(update={"epochs": 40}),
            "eval": folder_config.eval.model_copy(update={"every_epochs": 1000}),
        }
    )
    run = new_run(config, tmp_path)
    thread = start(run)
    wait_for(run.run_dir, lambda view: view.step >= 1)
    thread.commands.send(cmd.Pause())
    paused = wait_for(run.run_dir, lambda view: view.state is RunState.PAUSED)
    save, evaluation, rate = cmd.SaveCheckpoint(), cmd.Evaluate(), cmd.SetLr(lr=0.01)
    for command in (save, evaluation, rate):
        thread.commands.send(command)
    view = wait_for(
        run.run_dir,
        lambda view: (
            {c.command_id for c in (save, evaluation, rate)} <= set(view.acknowledged) and bool(view.checkpoints)
        ),
    )
    assert view.state is RunState.PAUSED
    assert all(view.acknowledged[c.command_id].ok for c in (save, evaluation, rate))
    assert view.checkpoints[-1].pinned
    assert view.last_evaluation is not None
    held_at = view.lr_edits[-1][0]
    assert held_at >= paused.step
    thread.commands.send(cmd.Unpause())
    trained = wait_for(run.run_dir, lambda view: view.step >= held_at + 2)
    assert trained.lr.y[held_at] == pytest.approx(0.01, rel=1e-4), "the edited rate is that of the next step"
    thread.stop()
    assert thread.join(60)
    assert view_of(run.run_dir).finish == Finished(
        reason="stopped", step=view_of(run.run_dir).step, epoch=view_of(run.run_dir).step / 4, exit_code=0
    )


def test_an_open_dashboard_keeps_its_session_after_the_last_epoch(folder_config: Config, tmp_path: Path) -> None:
    run = new_run(folder_config, tmp_path)
    thread = start(run, hold_open=True)
    wait_for(run.run_dir, lambda view: view.state is RunState.FINISHED)
    evaluation, rate = cmd.Evaluate(), cmd.SetLr(lr=0.1)
    thread.commands.send(evaluation)
    thread.commands.send(rate)
    view = wait_for(run.run_dir, lambda view: {rate.command_id, evaluation.command_id} <= set(view.acknowledged))
    wait_for(run.run_dir, lambda view: view.state is RunState.FINISHED and view.evaluations[-1].trigger == "key")
    assert view.evaluations[-1].trigger == "key"
    assert view.acknowledged[rate.command_id].message == "all steps are done"
    assert thread.alive
    thread.stop()
    assert thread.join(30)
    assert thread.exit_code == 0


def test_val_selects_the_best_and_test_is_evaluated_once(
    make_folder: FolderMaker, make_config: ConfigMaker, tmp_path: Path
) -> None:
    root = make_folder(splits=("train", "val", "test"))
    config = make_config("data.kind=imagefolder", f"data.root={root}", "data.crop_pct=1.0")
    run = train(config, tmp_path / "runs").run.run_dir
    evaluated = [(e.split, e.trigger) for e in events_of(run, Evaluated)]
    assert evaluated == [("val", "epoch"), ("val", "epoch"), ("test", "end")]
    assert all(e.split == "val" for e in events_of(run, Evaluated) if e.best)
    with run.results.open() as file:
        rows = list(csv.DictReader(file))
    assert all(row["val/accuracy"] for row in rows)
    best = max(rows, key=lambda row: (float(row["val/accuracy"]), -float(row["val/loss"])))
    assert [row for row in rows if row["test/accuracy"]] == [best], "only the weights chosen on val are tested"


def test_val_fraction_is_stratified_and_leaves_test_alone(make_config: ConfigMaker, tmp_path: Path) -> None:
    run = train(make_config("data.val_fraction=0.2", "train.epochs=1", "data.batch_size=256"), tmp_path).run.run_dir
    splits = view_of(run).started
    assert splits is not None
    assert splits.splits == {"train": 1150, "val": 287, "test": 360}
    assert splits.selection_split == "val"


def test_flip_tta_is_reported_beside_plain_accuracy(folder_config: Config, tmp_path: Path) -> None:
    config = folder_config.model_copy(update={"eval": folder_config.eval.model_copy(update={"tta": "flip"})})
    evaluated = events_of(train(config, tmp_path).run.run_dir, Evaluated)
    assert all(event.accuracy_tta is not None and 0 <= event.accuracy_tta <= 1 for event in evaluated)


def test_gradient_accumulation_uses_the_same_batches(folder_config: Config, tmp_path: Path) -> None:
    config = folder_config.model_copy(update={"train": folder_config.train.model_copy(update={"grad_accum_steps": 2})})
    view = view_of(train(config, tmp_path).run.run_dir)
    assert view.total_steps == 8
    assert all(math.isfinite(loss) for loss in view.train_loss.y)


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


def test_an_evaluation_after_the_end_covers_val_and_test(
    make_folder: FolderMaker, make_config: ConfigMaker, tmp_path: Path
) -> None:
    root = make_folder(splits=("train", "val", "test"))
    run = new_run(make_config("data.kind=imagefolder", f"data.root={root}", "data.crop_pct=1.0"), tmp_path / "runs")
    thread = start(run, hold_open=True)
    wait_for(run.run_dir, lambda view: view.state is RunState.FINISHED)
    evaluation = cmd.Evaluate()
    thread.commands.send(evaluation)
    view = wait_for(run.run_dir, lambda view: evaluation.command_id in view.acknowledged)
    assert view.acknowledged[evaluation.command_id].ok
    by_key = [event for event in events_of(run.run_dir, Evaluated) if event.trigger == "key"]
    assert [event.split for event in by_key] == ["val", "test"]
    assert view.best is not None
    assert by_key[1].step == view.best.step, "the weights chosen on val"


@pytest.mark.whole_network
def test_fine_tuning_freezes_weights_and_statistics(folder_config: Config, tmp_path: Path) -> None:
    source = train(folder_config, tmp_path).run.run_dir
    frozen = folder_config.model_copy(
        update={"model": folder_config.model.model_copy(update={"init_from": str(source.path), "freeze": "backbone"})}
    )
    tuned = train(frozen, tmp_path).run.run_dir
    before = read_checkpoint(CheckpointFolder(source, keep=2).at(8)).group("model")
    after = read_checkpoint(CheckpointFolder(tuned, keep=2).at(8)).group("model")
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) == (not name.startswith("fc.")), name
    started = view_of(tuned).started
    assert started is not None
    assert started.model["trainable"] == 512 * 3 + 3
    assert any("122 tensors loaded" in event.message for event in events_of(tuned, Warned))


def test_weights_without_batch_norm_counters_make_a_backbone(folder_config: Config, tmp_path: Path) -> None:
    source = train(folder_config, tmp_path).run.run_dir
    state = read_checkpoint(CheckpointFolder(source, keep=2).at(8)).group("model")
    old = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    save_file(old, tmp_path / "old.safetensors")
    changes = {"init_from": str(tmp_path / "old.safetensors"), "freeze": "backbone"}
    config = folder_config.model_copy(update={"model": folder_config.model.model_copy(update=changes)})
    assert train(config, tmp_path).exit_code == 0


def test_freezing_a_backbone_with_random_weights_is_refused(folder_config: Config, tmp_path: Path) -> None:
    source = train(folder_config, tmp_path).run.run_dir
    state = read_checkpoint(CheckpointFolder(source, keep=2).at(8)).group("model")
    save_file({name: t for name, t in state.items() if name != "layer2.0.bn1.weight"}, tmp_path / "part.safetensors")
    changes = {"init_from": str(tmp_path / "part.safetensors"), "freeze": "backbone"}
    other = folder_config.model_copy(update={"model": folder_config.model.model_copy(update=changes)})
    thread = train(other, tmp_path)
    failure = view_of(thread.run.run_dir).failure
    assert thread.exit_code == 2
    assert failure is not None
    assert "backbone would freeze random weights" in failure.error
    assert "layer2.0.bn1.weight" in failure.error


def test_dropout_does_not_depend_on_the_micro_batch(folder_config: Config, tmp_path: Path) -> None:
    from trainer.data.draws import EpochDraws
    from trainer.model.resnet import Head

    head, draws = Head(16, 3, dropout=0.5).train(), EpochDraws(3, epoch=2)
    features, positions = torch.ones(12, 16), torch.arange(100, 112)
    head.aim(positions, draws)
    whole = head(features)
    parts = []
    for part in (slice(0, 5), slice(5, 12)):
        head.aim(positions[part], draws)
        parts.append(head(features[part]))
    # Not bit for bit: with another number of rows, a processor may add in another order.
    assert torch.allclose(whole, torch.cat(parts), rtol=0.0, atol=1e-6)
    head.eval()
    assert not torch.equal(head(features), whole)


def test_a_session_has_every_callback_of_the_loop() -> None:
    wanted = {name for name in vars(LoopCallbacks) if not name.startswith("_")}
    assert wanted <= vars(TrainingSession).keys()
