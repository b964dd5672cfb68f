"""Whole sessions with the real network on tiny data."""

from __future__ import annotations

import contextlib
import csv
import math
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import ConfigMaker, FolderMaker
from tests.support.running import events_of, longer, new_run, start, train, view_of, wait_for
from trainer.config.schema import Config
from trainer.model.checkpoint import read_checkpoint
from trainer.model.checkpoint_folder import CheckpointFolder
from trainer.run.control import commands as cmd
from trainer.run.control import server as control_socket
from trainer.run.control.client import SocketControl
from trainer.run.folder.lock import read_owner
from trainer.run.log.result_events import Evaluated
from trainer.run.log.run_events import Finished, Warned
from trainer.run.status import RunState
from trainer.session.session import TrainingSession
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
