"""Steps that are not finite change nothing; what then becomes of the run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.running import events_of, new_run, start, train, view_of, wait_for
from trainer import step as step_module
from trainer.checkpoint import CheckpointFolder, read_checkpoint
from trainer.config import Config, OptimConfig
from trainer.loop import HOPELESS_IN_A_ROW
from trainer.model import loss_of
from trainer.optim import build_optimizer
from trainer.run import commands as cmd
from trainer.run import events as ev
from trainer.run.status import RunState
from trainer.update_gate import UpdateGate, join_statistics

OPTIM = OptimConfig(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)


def small_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))


def batch(seed: int) -> Tensor:
    return torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Weights, statistics and momentum, copied; not the counter of forward passes."""
    values = [value for name, value in model.state_dict().items() if "num_batches" not in name]
    return [value.clone() for value in values + [state["momentum_buffer"] for state in optimizer.state.values()]]


def gated_step(gate: UpdateGate, model: nn.Module, images: Tensor, *, spoil: str = "") -> float:
    model.zero_grad()
    gate.begin()
    loss = model(images).square().mean()
    loss.backward()
    if spoil == "gradient":
        next(model.parameters()).grad[0, 0, 0, 0] = -torch.inf  # type: ignore[index]
    norm = nn.utils.get_total_norm([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    return float(gate.step(loss.detach(), norm))


@pytest.mark.parametrize("spoil", ["loss", "gradient"])
@pytest.mark.parametrize("first", [True, False])
def test_a_step_that_is_not_finite_changes_nothing(spoil: str, first: bool) -> None:
    model = small_model()
    optimizer = build_optimizer(model, OPTIM)
    gate = UpdateGate(model, optimizer)
    if not first:
        assert gated_step(gate, model, batch(1)) == 0.0
    before = everything(model, optimizer)
    images = batch(2) * (torch.nan if spoil == "loss" else 1.0)
    assert gated_step(gate, model, images, spoil=spoil) == 1.0
    assert all(torch.equal(a, b) for a, b in zip(before, everything(model, optimizer), strict=True))
    assert gated_step(gate, model, batch(3)) == 0.0
    assert not any(torch.equal(a, b) for a, b in zip(before, everything(model, optimizer), strict=True))


def test_statistics_that_are_not_finite_are_not_taken_over() -> None:
    model = small_model()
    optimizer = build_optimizer(model, OPTIM)
    gate = UpdateGate(model, optimizer)
    before = everything(model, optimizer)
    # Batch norm makes outputs of any input that is finite; only the variance that it keeps overflows.
    assert gated_step(gate, model, batch(1) * 1e20) == 1.0
    assert all(torch.equal(a, b) for a, b in zip(before, everything(model, optimizer), strict=True))


def test_finite_steps_are_those_of_plain_sgd_to_the_bit() -> None:
    gated, plain = small_model(), small_model()
    optimizer = build_optimizer(gated, OPTIM)
    gate = UpdateGate(gated, optimizer)
    groups = [{"params": list(plain.parameters()), "weight_decay": 0.01}]
    reference = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True, fused=True)
    for seed in range(3):
        gated_step(gate, gated, batch(seed))
        plain.zero_grad()
        plain(batch(seed)).square().mean().backward()
        reference.step()
    pairs = zip(everything(gated, optimizer), everything(plain, reference), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_joined_statistics_are_the_models_own() -> None:
    model = small_model()
    names = list(model.state_dict())
    joined = join_statistics(model)
    assert list(model.state_dict()) == names
    model(batch(0))
    expected = torch.cat([model.state_dict()["1.running_mean"], model.state_dict()["1.running_var"]])
    assert torch.equal(joined, expected)
    model.load_state_dict(small_model().state_dict())
    assert torch.equal(joined, torch.cat([torch.zeros(4), torch.ones(4)]))


def spoil_steps(monkeypatch: pytest.MonkeyPatch, wanted: range) -> None:
    """Make the loss of some optimizer steps, counted from 1 over the whole test, not a number."""
    taken = [0]

    def spoilt(logits_NK: Tensor, labels_N: Tensor, *, label_smoothing: float) -> Tensor:
        taken[0] += 1
        loss = loss_of(logits_NK, labels_N, label_smoothing=label_smoothing)
        return loss * torch.nan if taken[0] in wanted else loss

    monkeypatch.setattr(step_module, "loss_of", spoilt)


def longer(config: Config, epochs: int) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update={"epochs": epochs})})


def test_a_single_bad_step_is_left_out_and_said(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_steps(monkeypatch, range(3, 4))
    run = train(folder_config, tmp_path).run.run_dir
    view = view_of(run)
    assert view.state is RunState.FINISHED
    assert [step for event in events_of(run, ev.Steps) for step in event.skipped] == [3]
    assert any("step 3: loss or gradient not finite, weights left as they were" in note.text for note in view.notes)
    assert all(epoch.train_loss is not None and epoch.train_loss > 0 for epoch in view.epochs)
    whole = read_checkpoint(CheckpointFolder(run, keep=2).at(8))
    assert all(bool(torch.isfinite(tensor).all()) for tensor in whole.tensors.values() if tensor.is_floating_point())


def test_too_many_in_a_row_end_a_run_that_nobody_watches(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_steps(monkeypatch, range(7, 10_000))
    thread = train(longer(folder_config, 60), tmp_path)
    failure = view_of(thread.run.run_dir).failure
    assert thread.exit_code == 1
    assert failure is not None
    assert "steps in a row" in failure.error
    assert "none of them changed the weights" in failure.error
    last = read_checkpoint(thread.run.run_dir.checkpoints / failure.checkpoint)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in last.tensors.values() if tensor.is_floating_point())


def test_a_watched_run_is_held_and_goes_back_at_half_the_rate(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_steps(monkeypatch, range(7, 7 + HOPELESS_IN_A_ROW + 30))
    run = new_run(longer(folder_config, 40), tmp_path)
    thread = start(run, hold_open=True)
    held = wait_for(run.run_dir, lambda view: view.state is RunState.PAUSED)
    assert held.diverged is not None
    assert held.diverged.checkpoint == "step-00000004.safetensors"
    assert held.diverged.in_a_row >= HOPELESS_IN_A_ROW
    monkeypatch.setattr(step_module, "loss_of", loss_of)
    thread.commands.send(cmd.SaveCheckpoint())  # of what will be given up
    thread.commands.send(cmd.GoBack())
    went_on = wait_for(run.run_dir, lambda view: view.step > 20 and view.diverged is None)
    assert went_on.lr_edits == [(4, 0.5)]
    thread.stop()
    thread.release()
    assert thread.join(60)
    (seam,) = events_of(run.run_dir, ev.Resumed)
    assert (seam.step, seam.checkpoint) == (4, "step-00000004.safetensors")
    assert all(loss == loss for loss in view_of(run.run_dir).train_loss.y[6:]), "the bad steps are gone from the curves"
    assert [path.suffix for path in run.run_dir.checkpoints.glob("*.given-up")] == [".given-up"]
    newest = read_checkpoint(CheckpointFolder(run.run_dir, keep=2).choose("latest"))
    assert newest.meta["lr_edits"] == [[4, 0.5]]
    assert newest.step == view_of(run.run_dir).step


def test_going_back_is_refused_where_nothing_went_wrong(folder_config: Config, tmp_path: Path) -> None:
    run = new_run(longer(folder_config, 5000), tmp_path)
    thread = start(run, hold_open=True)
    wait_for(run.run_dir, lambda view: view.step > 2)
    thread.commands.send(command := cmd.GoBack())
    view = wait_for(run.run_dir, lambda view: command.command_id in view.acknowledged)
    assert not view.acknowledged[command.command_id].ok
    thread.stop()
    thread.release()
    assert thread.join(60)
