"""Whole runs of the trainer's loop: every step, the logged losses and the average compared with the reference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import ConfigMaker, FolderMaker
from tests.reference.training_comparison import MARGIN, MUON, SPREAD, TOLERANCE, Deviation
from tests.reference.training_rules import averaged
from tests.reference.training_sides import State, narrow_model, shake
from tests.support.checkpoints import run_record
from trainer.config.schema import ModelConfig
from trainer.data.dataset import ResidentSplit
from trainer.run.log.event import Event
from trainer.run.log.result_events import EpochEnded, Steps
from trainer.training import build
from trainer.training.build import build_trainer
from trainer.training.callbacks import LoopCallbacks
from trainer.training.loop import Trainer

FP32 = TOLERANCE["native"]
EDIT = (5, 0.5)  # the learning rate is halved by key before step 5


class Recorder(LoopCallbacks):
    """Records the state before each step and the logged events, edits the rate, and freezes a stage."""

    trainer: Trainer

    def __init__(self) -> None:
        self.states: list[State] = []
        self.published: list[Event] = []

    def publish(self, event: Event) -> None:
        self.published.append(event)

    def poll(self, evaluating: float | None = None) -> None:
        step = self.trainer.state.step
        if evaluating is not None or step < len(self.states):
            return
        self.states.append(self.state())
        if step == EDIT[0]:
            self.trainer.state.schedule.edit(*EDIT)
        if step == 6:
            self.trainer.freeze(2)

    def state(self) -> State:
        state = self.trainer.state
        return State.of(self.trainer.config, state.model, state.optimizer, state.ema)


def narrow_and_shaken(config: ModelConfig, num_classes: int, seed: int) -> nn.Module:
    model = narrow_model(config, num_classes, seed)
    shake(model, seed)
    return model


@pytest.fixture(params=["sgd", "muon"])
def run(
    request: pytest.FixtureRequest, make_folder: FolderMaker, make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch
) -> Recorder:  # fmt: skip
    """A finished run of two epochs, with a rarer class and a smaller last batch."""
    monkeypatch.setattr(build, "build_model", narrow_and_shaken)
    root = make_folder(per_class=10)
    for path in sorted((root / "train" / "red").iterdir())[9:]:
        path.unlink()
    config = make_config(
        "data.kind=imagefolder", f"data.root={root}", "data.crop_pct=1.0", "data.cache=ram",
        "data.image_size=24", "data.batch_size=8", "data.drop_last=false", "data.flip=random", "data.crop_pad=2",
        "data.balance=loss", "train.label_smoothing=0.1", "train.ema_decay=0.9", "train.grad_accum_steps=2",
        "model.dropout=0.2", "run.seed=6", f"optim.name={request.param}", "optim.lr=0.2", "schedule.warmup=0.3",
    )  # fmt: skip
    recorder = Recorder()
    recorder.trainer = build_trainer(config, Path("runs"), recorder, lambda *_: None, None).trainer
    assert recorder.trainer.run() == "completed"
    recorder.states.append(recorder.state())
    return recorder


def test_every_step_of_a_run_equals_the_references(run: Recorder) -> None:
    config, split = run.trainer.config, run.trainer.data.dataset.splits["train"]
    assert isinstance(split, ResidentSplit)
    pixels = split.pixels_NHWC.reshape(-1, 3).double() / 255
    mean, std = (
        [round(value, 6) for value in tensor.tolist()] for tensor in (pixels.mean(0), pixels.std(0, correction=0))
    )
    steps = list(range(2 * 4))
    assert len(run.states) == len(steps) + 1
    seen: list[tuple[float, float]] = []
    compared = 0
    for step in steps:
        before, after = run.states[step], run.states[step + 1]
        reference = before.reference(config, split.pixels_NHWC, split.labels_N.tolist(), step=step, mean=mean, std=std)
        reference.edits = [EDIT]
        reference.take_step(frozen=2 if step >= 6 else 0)
        seen.append((reference.loss, reference.top1))
        if reference.margin < MARGIN or reference.spread > SPREAD:
            continue
        compared += 1
        deviation = Deviation.of(before, after, reference)
        assert max(deviation.statistics, deviation.momentum) < FP32, step
        assert max(deviation.change, deviation.average) < FP32 * (MUON if config.optim.name == "muon" else 1.0), step
    assert compared > 4
    logged = [event for event in run.published if isinstance(event, Steps)]
    assert [loss for event in logged for loss in event.loss] == pytest.approx([loss for loss, _ in seen], abs=2e-5)
    assert [top1 for event in logged for top1 in event.accuracy] == pytest.approx([top1 for _, top1 in seen], abs=1e-5)
    sizes = [8, 8, 8, 5]
    for epoch, event in enumerate(event for event in run.published if isinstance(event, EpochEnded)):
        of_epoch = seen[4 * epoch : 4 * epoch + 4]
        mean_loss = sum(size * loss for size, (loss, _) in zip(sizes, of_epoch, strict=True)) / 29
        mean_top1 = sum(size * top1 for size, (_, top1) in zip(sizes, of_epoch, strict=True)) / 29
        assert (event.train_loss, event.train_accuracy) == pytest.approx((mean_loss, mean_top1), abs=2e-5)


def test_the_saved_average_includes_all_steps(run: Recorder) -> None:
    expected: dict[str, Tensor] = {**run.states[0].weights, **run.states[0].statistics}
    for step, state in enumerate(run.states[1:], 1):
        for name, value in {**state.weights, **state.statistics}.items():
            expected[name] = averaged(expected[name], value, decay=0.9, step=step)
    saved = run.trainer.state.snapshot(run_record()).completed()
    average, weights = saved.group("ema"), saved.group("model")
    for name, value in expected.items():
        torch.testing.assert_close(average[name].double(), value, rtol=1e-5, atol=1e-6)
    assert not torch.equal(average["fc.weight"], weights["fc.weight"])
