"""`trainer.training.interim_evaluation`: the evaluated weights and images, and the choice of the best state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.reference.evaluation_networks import TinyResNet
from tests.reference.evaluation_plain import plain_evaluation
from tests.support.checkpoints import checkpoint_of
from trainer.config.loader import build_config
from trainer.config.lr_schedule import schedule_of
from trainer.config.schema import Config
from trainer.data.augment.augment import Augment
from trainer.data.batches.lost_images import LostImages
from trainer.data.dataset import DataSet, ResidentSplit
from trainer.data.prepare import PreparedData
from trainer.errors import CheckpointError
from trainer.model.checkpoint import Checkpoint
from trainer.model.ema import ModelEma
from trainer.model.numerics import Numerics
from trainer.run.log.event import Event
from trainer.run.log.result_events import Evaluated
from trainer.run.log.run_events import Warned
from trainer.training.callbacks import LoopCallbacks
from trainer.training.interim_evaluation import InterimEvaluator
from trainer.training.metrics import Stopwatch
from trainer.training.optimizer import build_optimizer
from trainer.training.state import TrainState
from trainer.training.step import TrainStep

CPU = torch.device("cpu")
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
CLASSES = 3


class Session(LoopCallbacks):
    """Records published events; returns the given best checkpoint, or fails without one."""

    def __init__(self, best: Checkpoint | None) -> None:
        self.events: list[Event] = []
        self.best = best

    def publish(self, event: Event) -> None:
        self.events.append(event)

    def saved_best(self) -> Checkpoint:
        if self.best is None:
            raise CheckpointError("it is damaged")
        return self.best


def split(seed: int, number: int) -> ResidentSplit:
    generator = torch.Generator().manual_seed(seed)
    pixels_NHWC = torch.randint(0, 256, (number, 8, 8, 3), generator=generator).to(torch.uint8)
    return ResidentSplit(pixels_NHWC, torch.randint(0, CLASSES, (number,), generator=generator))


def make_evaluator(
    session: Session, *, ema: bool, splits: tuple[str, ...] = ("val", "test"), **settings: Any
) -> InterimEvaluator:
    """Evaluator of a tiny network at step 8, with 4 steps per epoch; the EMA has other weights."""
    overrides = [f"{key.replace('__', '.')}={value}" for key, value in settings.items()]
    config: Config = build_config(
        {}, {}, "test", ["data.image_size=8", "eval.batch_size=5", "run.device=cpu", *overrides]
    )
    names = ("train", *splits)
    dataset = DataSet(
        name="d", classes=tuple("abc"), splits={name: split(seed, 9 + seed) for seed, name in enumerate(names)},
        fingerprint="f", identity={}, preprocess={},
    )  # fmt: skip
    data = PreparedData(dataset=dataset, mean=MEAN, std=STD, cache="ram", device=CPU)
    model, numerics = TinyResNet(CLASSES, seed=1), Numerics(precision="fp32", channels_last=False)
    optimizer = build_optimizer(model, config.optim, precision="fp32")
    average = ModelEma(model, 0.9) if ema else None
    if average is not None:
        average.model.load_state_dict(TinyResNet(CLASSES, seed=2).state_dict())
    state = TrainState(model, optimizer, schedule_of(config, steps_per_epoch=4), average)
    state.step, state.best.step = 8, 4
    step = TrainStep(model, optimizer, Augment(config=config.data, normalize=data.normalize, seed=0), config, numerics)
    return InterimEvaluator(
        config=config, data=data, state=state, train_step=step, stopwatch=Stopwatch(), hooks=session, device=CPU,
        lost=LostImages(pytest.fail),
    )  # fmt: skip


def checkpoint(step: int, *, ema: bool) -> Checkpoint:
    """A checkpoint whose weights and average differ from those of the evaluator's models."""

    def named(prefix: str, seed: int) -> dict[str, Tensor]:
        return {f"{prefix}.{name}": value for name, value in TinyResNet(CLASSES, seed).state_dict().items()}

    return checkpoint_of(named("model", 3) | (named("ema", 4) if ema else {}), step=step)


def assert_matches_plain(event: Evaluated, model: nn.Module, images: ResidentSplit) -> None:
    """Compare a published evaluation with the plain one of a model."""
    plain = plain_evaluation(model, images.pixels_NHWC, images.labels_N.tolist(), MEAN, STD, CLASSES)
    assert plain.margin > 1e-4
    assert event.loss == pytest.approx(plain.loss, rel=2e-5, abs=2e-6)
    assert event.accuracy == pytest.approx(plain.accuracy)
    assert event.accuracy_tta == pytest.approx(plain.accuracy_tta)
    assert event.counts == [sum(row) for row in plain.confusion]
    assert event.correct == [row[label] for label, row in enumerate(plain.confusion)]
    assert event.predicted == [sum(column) for column in zip(*plain.confusion, strict=True)]


@pytest.mark.parametrize(
    ("ema", "best_step", "saved", "seed"),
    [
        (True, 4, True, 4), (False, 4, True, 3),  # the best checkpoint, or its average
        (True, 8, True, 2), (False, 8, True, 1),  # the best is the current state
        (True, 4, False, 2), (False, 4, False, 1),  # the best cannot be read
    ],
)  # fmt: skip
def test_the_test_images_are_evaluated_with_the_best_weights(ema: bool, best_step: int, saved: bool, seed: int) -> None:
    session = Session(checkpoint(4, ema=ema) if saved else None)
    evaluator = make_evaluator(session, ema=ema, eval__tta="flip")
    evaluator.state.best.step = best_step
    before = {name: value.clone() for name, value in evaluator.state.evaluated_model.state_dict().items()}
    evaluator.evaluate_best_on_test(trigger="end")
    (event,) = (event for event in session.events if isinstance(event, Evaluated))
    assert_matches_plain(event, TinyResNet(CLASSES, seed), evaluator.data.dataset.splits["test"])  # type: ignore[arg-type]
    step = 4 if seed > 2 else 8
    assert (event.split, event.step, event.epoch, event.trigger) == ("test", step, step / 4, "end")
    assert (event.weights, event.best) == ("ema" if ema else "raw", False)
    assert evaluator.state.best.tested_step == best_step
    assert sum(isinstance(event, Warned) for event in session.events) == (not saved)
    after = evaluator.state.evaluated_model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items()), "the run's own weights are unchanged"


@pytest.mark.parametrize("ema", [True, False])
def test_the_current_state_is_evaluated_on_val_and_can_become_the_best(ema: bool) -> None:
    session = Session(None)
    evaluator = make_evaluator(session, ema=ema, eval__tta="flip")
    assert evaluator.has_separate_test_split
    assert evaluator.evaluate("val", trigger="epoch")
    (event,) = session.events
    assert isinstance(event, Evaluated)
    assert_matches_plain(event, TinyResNet(CLASSES, 2 if ema else 1), evaluator.data.dataset.splits["val"])  # type: ignore[arg-type]
    assert (event.split, event.step, event.best) == ("val", 8, True)
    best = evaluator.state.best
    assert (best.accuracy, best.loss, best.step) == (event.accuracy, event.loss, 8)
    assert evaluator.state.last_evaluation == {"split": "val", "step": 8, "accuracy": event.accuracy}
    assert not evaluator.evaluate("val", trigger="key"), "the same result is not better"
    other = make_evaluator(session, ema=ema)
    assert not other.evaluate("test", trigger="key"), "with val, test images do not choose the best"
    assert (other.state.best.step, other.state.best.evaluated_step, other.state.best.improved_step) == (4, -1, -1)
    assert make_evaluator(session, ema=ema, splits=("test",)).evaluate("test", trigger="epoch")
    assert not make_evaluator(session, ema=ema, splits=("test",)).has_separate_test_split


def test_an_evaluation_that_runs_out_of_memory_is_repeated_with_half_the_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = Session(None)
    evaluator = make_evaluator(session, ema=False, eval__tta="flip")
    sizes: list[int] = []
    forward: Callable[[Any, Tensor], Tensor] = TinyResNet.forward

    def small_only(self: TinyResNet, images_NCHW: Tensor) -> Tensor:
        sizes.append(len(images_NCHW))
        assert len(sizes) < 20, "the same size is tried repeatedly"
        if len(images_NCHW) > 2:
            raise RuntimeError("CUDA out of memory")
        return forward(self, images_NCHW)

    monkeypatch.setattr(TinyResNet, "forward", small_only)
    evaluator.evaluate("val", trigger="epoch")
    monkeypatch.setattr(TinyResNet, "forward", forward)
    event = session.events[-1]
    assert isinstance(event, Evaluated)
    assert_matches_plain(event, TinyResNet(CLASSES, 1), evaluator.data.dataset.splits["val"])  # type: ignore[arg-type]
    assert sizes[:11] == [5] + [2] * 2 * 5, "10 images in twos, each with its mirror image"
    wrong = sum(event.counts) - sum(event.correct)
    assert sizes[11:] == [2] * (wrong // 2) + [1] * (wrong % 2), "the mistakes once more, for their heat maps"
