"""Non-finite steps change nothing; after too many of them a run is held or ends."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.running import answered, events_of, longer, new_run, start, train, view_of, wait_for
from trainer.config.schema import Config, OptimConfig
from trainer.errors import is_out_of_memory
from trainer.evaluation.evaluate import Evaluation, evaluate
from trainer.model.checkpoint import file_name, read_checkpoint
from trainer.model.checkpoint_folder import CheckpointFolder
from trainer.model.resnet import losses_of
from trainer.run.control import commands as cmd
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.result_events import CheckpointSaved, EpochEnded, Steps
from trainer.run.log.run_events import Diverged, Resumed
from trainer.run.status import RunState
from trainer.training import interim_evaluation
from trainer.training import step as step_module
from trainer.training.loop import MAX_CONSECUTIVE_SKIPPED_STEPS
from trainer.training.nonfinite_gate import NonFiniteGate, join_statistics
from trainer.training.optimizer import build_optimizer
from trainer.training.sgd import SGD
from trainer.training.step import StatisticsMomentum

pytestmark = pytest.mark.usefixtures("narrow_network")

OPTIM = OptimConfig(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)


def small_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))


def batch(seed: int) -> Tensor:
    return torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def state_of(model: nn.Module, optimizer: SGD | torch.optim.Optimizer) -> list[Tensor]:
    """Copies of weights, statistics and momenta, without the counter of forward passes."""
    values = [value for name, value in model.state_dict().items() if "num_batches" not in name]
    return [value.clone() for value in values + [state["momentum_buffer"] for state in optimizer.state.values()]]


def gated_step(gate: NonFiniteGate, model: nn.Module, images: Tensor, *, spoil: str = "") -> float:
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
@pytest.mark.parametrize("name", ["sgd", "muon"])
def test_a_non_finite_step_changes_nothing(spoil: str, first: bool, name: str) -> None:
    model = small_model()
    optimizer = build_optimizer(model, OPTIM.model_copy(update={"name": name}), precision="bf16")
    gate = NonFiniteGate(model, optimizer)
    if not first:
        assert gated_step(gate, model, batch(1)) == 0.0
    before = state_of(model, optimizer)
    images = batch(2) * (torch.nan if spoil == "loss" else 1.0)
    assert gated_step(gate, model, images, spoil=spoil) == 1.0
    assert all(torch.equal(a, b) for a, b in zip(before, state_of(model, optimizer), strict=True))
    assert gated_step(gate, model, batch(3)) == 0.0
    assert not any(torch.equal(a, b) for a, b in zip(before, state_of(model, optimizer), strict=True))


def test_non_finite_statistics_skip_the_step() -> None:
    model = small_model()
    optimizer = build_optimizer(model, OPTIM, precision="bf16")
    gate = NonFiniteGate(model, optimizer)
    before = state_of(model, optimizer)
    # Batch norm gives finite outputs for any finite input; only its running variance overflows.
    assert gated_step(gate, model, batch(1) * 1e20) == 1.0
    assert all(torch.equal(a, b) for a, b in zip(before, state_of(model, optimizer), strict=True))


def test_finite_steps_equal_plain_sgd_bit_for_bit() -> None:
    gated, plain = small_model(), small_model()
    optimizer = build_optimizer(gated, OPTIM, precision="bf16")
    gate = NonFiniteGate(gated, optimizer)
    groups = [{"params": list(plain.parameters()), "weight_decay": 0.01}]
    reference = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True, fused=True)
    for seed in range(3):
        gated_step(gate, gated, batch(seed))
        plain.zero_grad()
        plain(batch(seed)).square().mean().backward()
        reference.step()
    pairs = zip(state_of(gated, optimizer), state_of(plain, reference), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_joined_statistics_share_the_models_memory() -> None:
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
    """Make the loss of some optimizer steps NaN, counted from 1 over the whole test."""
    taken = [0]

    def spoilt(logits_NK: Tensor, labels_N: Tensor, *, label_smoothing: float) -> Tensor:
        taken[0] += 1
        loss = losses_of(logits_NK, labels_N, label_smoothing=label_smoothing)
        return loss * torch.nan if taken[0] in wanted else loss

    monkeypatch.setattr(step_module, "losses_of", spoilt)


@pytest.mark.whole_network  # in fp16 a narrow one overflows by itself
@pytest.mark.parametrize(
    ("precision", "why"),
    [("fp32", "loss or gradient not finite"), ("fp16", "loss or gradient overflowed in fp16")],
)
def test_a_single_non_finite_step_is_skipped_and_reported(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, why: str
) -> None:
    spoil_steps(monkeypatch, range(3, 4))
    settings = folder_config.run.model_copy(update={"precision": precision})
    run = train(folder_config.model_copy(update={"run": settings}), tmp_path).run.run_dir
    view = view_of(run)
    assert view.state is RunState.FINISHED
    assert [step for event in events_of(run, Steps) for step in event.skipped] == [3]
    assert any(f"step 3: {why}, weights unchanged" in note.text for note in view.notes)
    assert all(epoch.train_loss is not None and epoch.train_loss > 0 for epoch in view.epochs)
    whole = read_checkpoint(CheckpointFolder(run, keep=2).at(8))
    assert all(bool(torch.isfinite(tensor).all()) for tensor in whole.tensors.values() if tensor.is_floating_point())


def test_too_many_bad_steps_end_a_run_without_a_dashboard(
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


def keep_the_first_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every evaluation return the result of the first, so that no later one is a new best, which would be saved."""
    results: list[Evaluation] = []

    def first(*arguments: Any, **options: Any) -> Evaluation:
        if not results:
            results.append(evaluate(*arguments, **options))
        return results[0]

    monkeypatch.setattr(interim_evaluation, "evaluate", first)


def test_a_run_with_a_dashboard_is_held_and_rolled_back_at_half_the_rate(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_the_first_evaluation(monkeypatch)
    spoil_steps(monkeypatch, range(7, 7 + MAX_CONSECUTIVE_SKIPPED_STEPS + 30))
    run = new_run(longer(folder_config, 40), tmp_path)
    thread = start(run, hold_open=True)
    held = wait_for(run.run_dir, lambda view: view.state is RunState.PAUSED)
    assert held.diverged is not None
    assert held.diverged.checkpoint == "step-00000004.safetensors"
    assert held.diverged.in_a_row >= MAX_CONSECUTIVE_SKIPPED_STEPS
    monkeypatch.setattr(step_module, "losses_of", losses_of)
    thread.commands.send(cmd.SaveCheckpoint())  # will be set aside
    thread.commands.send(cmd.GoBack())
    continued = wait_for(run.run_dir, lambda view: view.step > 20 and view.diverged is None)
    assert continued.lr_edits == [(4, 0.5)]
    thread.stop()
    thread.release()
    assert thread.join(60)
    (resumed,) = events_of(run.run_dir, Resumed)
    assert (resumed.step, resumed.checkpoint) == (4, "step-00000004.safetensors")
    assert all(loss == loss for loss in view_of(run.run_dir).train_loss.y[6:]), (
        "the bad steps are removed from the curves"
    )
    assert [path.suffix for path in run.run_dir.checkpoints.glob("*.given-up")] == [".given-up"]
    newest = read_checkpoint(CheckpointFolder(run.run_dir, keep=2).choose("latest"))
    assert newest.meta["lr_edits"] == [(4, 0.5)]
    assert newest.step == view_of(run.run_dir).step


def held(run: RunDir, times: int) -> Diverged:
    """Wait until a run has been held so many times; returns the last reason."""
    wait_for(run, lambda _: len(events_of(run, Diverged)) == times)
    wait_for(run, lambda view: view.state is RunState.PAUSED and view.diverged is not None)
    return events_of(run, Diverged)[-1]


def wait_for_saves(run: RunDir, step: int, count: int) -> None:
    """Wait until a step was saved `count` times."""
    wait_for(run, lambda _: sum(event.step == step for event in events_of(run, CheckpointSaved)) == count)


def test_every_rollback_halves_the_rate_and_is_saved(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_steps(monkeypatch, range(7, 10_000))
    run = new_run(longer(folder_config, 400), tmp_path)
    thread = start(run, hold_open=True)
    for times in (1, 2, 3):
        assert held(run.run_dir, times).checkpoint == "step-00000004.safetensors"
        thread.commands.send(back := cmd.GoBack())
        assert answered(run.run_dir, back).ok
        held(run.run_dir, times + 1)
        wait_for_saves(run.run_dir, 4, times + 1)  # once in training, and once for each rollback
        edits = read_checkpoint(CheckpointFolder(run.run_dir, keep=2).at(4)).meta["lr_edits"]
        assert math.prod(factor for _, factor in edits) == 0.5**times
    thread.stop()
    thread.release()
    assert thread.join(60)


def test_continuing_without_rollback_keeps_the_good_checkpoint(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_steps(monkeypatch, range(7, 10_000))
    checkpoint = folder_config.checkpoint.model_copy(update={"every_s": 0.01})
    run = new_run(longer(folder_config, 400).model_copy(update={"checkpoint": checkpoint}), tmp_path)
    thread = start(run, hold_open=True)
    first = held(run.run_dir, 1)
    good = next(step for step in range(6, 0, -1) if first.checkpoint == file_name(step))
    for command in (cmd.SetLr(lr=1e-5), cmd.SaveCheckpoint(), evaluate := cmd.Evaluate(), back := cmd.GoBack()):
        thread.commands.send(command)
    assert not answered(run.run_dir, back).ok, "refused during the evaluation"
    assert answered(run.run_dir, evaluate).ok
    thread.commands.send(cmd.Unpause())
    second = held(run.run_dir, 2)
    assert second.step >= first.step + MAX_CONSECUTIVE_SKIPPED_STEPS
    assert second.checkpoint == first.checkpoint, "no good checkpoint in between"
    monkeypatch.setattr(step_module, "losses_of", losses_of)
    thread.commands.send(cmd.GoBack())
    wait_for(run.run_dir, lambda _: events_of(run.run_dir, Resumed) != [])
    view = wait_for(run.run_dir, lambda view: len(view.lr_edits) == 1 and view.lr_edits[0][0] == good and view.step > 8)
    thread.stop()
    thread.release()
    assert thread.join(60)
    assert view.lr.last is not None
    assert view.lr.last < 1e-5, "half of the rate that was set in between"
    newest = read_checkpoint(CheckpointFolder(run.run_dir, keep=2).choose("latest"))
    assert newest.meta["best_step"] in CheckpointFolder(run.run_dir, keep=2).steps()


def test_a_run_that_ends_with_non_finite_steps_has_failed(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics arrive later than their steps, so the last ones are known only after the last step."""
    monkeypatch.setattr("trainer.training.loop._PUBLISH_EVERY_S", 30.0)
    spoil_steps(monkeypatch, range(1, 10_000))
    small = folder_config.data.model_copy(update={"batch_size": 3})
    thread = train(longer(folder_config, 1).model_copy(update={"data": small}), tmp_path)
    view = view_of(thread.run.run_dir)
    assert view.total_steps == view.step == 12
    assert thread.exit_code == 1
    assert view.failure is not None
    assert "12 steps in a row" in view.failure.error


def test_an_epoch_without_a_good_step_has_no_loss(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_steps(monkeypatch, range(5, 9))
    run = train(folder_config, tmp_path).run.run_dir
    first, second = events_of(run, EpochEnded)
    assert first.train_loss is not None
    assert (second.train_loss, second.train_accuracy) == (None, None)
    assert run.results.read_text().count("\n") == 3


@pytest.mark.parametrize("parts", [1, 2, 8])
def test_statistics_change_equally_with_any_number_of_micro_batches(parts: int) -> None:
    norm = nn.BatchNorm2d(1)
    momentum = StatisticsMomentum(norm)
    for _ in range(2):
        momentum.set_num_parts(parts)
        for _ in range(parts):
            norm(torch.full((2, 1, 2, 2), 5.0))
    assert norm.running_mean is not None
    assert float(norm.running_mean) == pytest.approx(5.0 * (1 - 0.9**2), rel=1e-5)
    momentum.set_num_parts(1)
    assert norm.momentum == 0.1, "exactly"


@pytest.mark.parametrize(
    "words",
    ["CUDA out of memory.", "CUBLAS_STATUS_ALLOC_FAILED when calling", "GET was unable to find an engine to execute"],
)
def test_out_of_memory_is_recognised_by_its_messages(words: str) -> None:
    assert is_out_of_memory(RuntimeError(f"x {words} y"))
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))


def test_a_rollback_is_refused_without_non_finite_steps(folder_config: Config, tmp_path: Path) -> None:
    run = new_run(longer(folder_config, 5000), tmp_path)
    thread = start(run, hold_open=True)
    wait_for(run.run_dir, lambda view: view.step > 2)
    thread.commands.send(command := cmd.GoBack())
    view = wait_for(run.run_dir, lambda view: command.command_id in view.acknowledged)
    assert not view.acknowledged[command.command_id].ok
    thread.stop()
    thread.release()
    assert thread.join(60)
