"""`trainer.training.evaluator`: which weights are measured on which images, and which state is the best."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
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
from trainer.evaluation.evaluate import Evaluation
from trainer.model.checkpoint import Checkpoint
from trainer.model.ema import ModelEma
from trainer.model.numerics import Numerics
from trainer.run.log.event import Event
from trainer.run.log.result_events import Evaluated
from trainer.run.log.run_events import Warned
from trainer.training.callbacks import NullCallbacks
from trainer.training.evaluator import Evaluator
from trainer.training.metrics import Stopwatch
from trainer.training.optimizer import build_optimizer
from trainer.training.state import TrainState
from trainer.training.step import TrainStep

CPU = torch.device("cpu")
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
CLASSES = 3


class Session(NullCallbacks):
    """Keeps what is published, and has the best checkpoint, or none."""

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


def evaluator(session: Session, *, ema: bool, splits: tuple[str, ...] = ("val", "test"), **settings: Any) -> Evaluator:
    """An evaluator of a tiny network after 8 steps of 4 an epoch; the average has weights of its own."""
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
    state.step, state.best_step = 8, 4
    step = TrainStep(model, optimizer, Augment(config=config.data, normalize=data.normalize, seed=0), config, numerics)
    return Evaluator(
        config=config, data=data, state=state, train_step=step, numerics=numerics, stopwatch=Stopwatch(), hooks=session,
        device=CPU, lost=LostImages(pytest.fail),
    )  # fmt: skip


def checkpoint(step: int, *, ema: bool) -> Checkpoint:
    """A checkpoint with weights that no model of the evaluator has, and others for the average."""

    def named(prefix: str, seed: int) -> dict[str, Tensor]:
        return {f"{prefix}.{name}": value for name, value in TinyResNet(CLASSES, seed).state_dict().items()}

    return checkpoint_of(named("model", 3) | (named("ema", 4) if ema else {}), step=step)


def published_as(event: Evaluated, model: nn.Module, images: ResidentSplit) -> None:
    """Hold a published evaluation against the plain one of a model."""
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
        (True, 4, True, 4), (False, 4, True, 3),  # the best checkpoint: its average, where it has one
        (True, 8, True, 2), (False, 8, True, 1),  # the best is the state as it is
        (True, 4, False, 2), (False, 4, False, 1),  # the best cannot be read
    ],
)  # fmt: skip
def test_the_test_images_are_measured_with_the_weights_that_were_the_best(
    ema: bool, best_step: int, saved: bool, seed: int
) -> None:
    session = Session(checkpoint(4, ema=ema) if saved else None)
    found = evaluator(session, ema=ema, eval__tta="flip")
    found.state.best_step = best_step
    before = {name: value.clone() for name, value in found.state.measured_model.state_dict().items()}
    found.test_the_best(trigger="end")
    (event,) = (event for event in session.events if isinstance(event, Evaluated))
    published_as(event, TinyResNet(CLASSES, seed), found.data.dataset.splits["test"])  # type: ignore[arg-type]
    step = 4 if seed > 2 else 8
    assert (event.split, event.step, event.epoch, event.trigger) == ("test", step, step / 4, "end")
    assert (event.weights, event.best) == ("ema" if ema else "raw", False)
    assert found.state.tested_step == best_step
    assert sum(isinstance(event, Warned) for event in session.events) == (not saved)
    after = found.state.measured_model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items()), "the run's own weights stay"


@pytest.mark.parametrize("ema", [True, False])
def test_between_epochs_the_run_as_it_stands_is_measured_on_val_and_may_be_the_best(ema: bool) -> None:
    session = Session(None)
    found = evaluator(session, ema=ema, eval__tta="flip")
    assert found.has_test_apart
    assert found.evaluate("val", trigger="epoch")
    (event,) = session.events
    assert isinstance(event, Evaluated)
    published_as(event, TinyResNet(CLASSES, 2 if ema else 1), found.data.dataset.splits["val"])  # type: ignore[arg-type]
    assert (event.split, event.step, event.best) == ("val", 8, True)
    assert (found.state.best_accuracy, found.state.best_loss, found.state.best_step) == (event.accuracy, event.loss, 8)
    assert not found.evaluate("val", trigger="key"), "the same again is no better"
    assert not evaluator(session, ema=ema).evaluate("test", trigger="key"), (
        "test images choose nothing where there is val"
    )
    assert evaluator(session, ema=ema, splits=("test",)).evaluate("test", trigger="epoch")
    assert not evaluator(session, ema=ema, splits=("test",)).has_test_apart


def test_an_evaluation_that_runs_out_of_memory_is_taken_again_with_half_the_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = Session(None)
    found = evaluator(session, ema=False, eval__tta="flip")
    sizes: list[int] = []
    forward: Callable[[Any, Tensor], Tensor] = TinyResNet.forward

    def small_only(self: TinyResNet, images_NCHW: Tensor) -> Tensor:
        sizes.append(len(images_NCHW))
        assert len(sizes) < 20, "the same size is tried again and again"
        if len(images_NCHW) > 2:
            raise RuntimeError("CUDA out of memory")
        return forward(self, images_NCHW)

    monkeypatch.setattr(TinyResNet, "forward", small_only)
    found.evaluate("val", trigger="epoch")
    monkeypatch.setattr(TinyResNet, "forward", forward)
    event = session.events[-1]
    assert isinstance(event, Evaluated)
    published_as(event, TinyResNet(CLASSES, 1), found.data.dataset.splits["val"])  # type: ignore[arg-type]
    assert sizes == [5] + [2] * 2 * 5, "10 images in twos, each with its mirror image"


figures = st.tuples(st.sampled_from([0.2, 0.5, 0.8]), st.sampled_from([0.5, 1.0, 2.0, math.nan, math.inf]))


@given(results=st.lists(figures, min_size=1, max_size=9), by=st.sampled_from(["accuracy", "loss"]))
def test_the_best_is_the_first_of_the_best_results_that_are_finite(results: list[tuple[float, float]], by: str) -> None:
    """By accuracy, of equal ones by the lower loss; or by the loss alone. Patience counts from the last strict gain."""
    found = _choosing(by)
    improved, gained = -1, -math.inf
    answers = []
    for step, (accuracy, loss) in enumerate(results, 1):
        value = accuracy if by == "accuracy" else -loss
        if math.isfinite(loss) and value > gained:
            improved, gained = step, value
        answers.append(found._note_result("val", step, _Result(accuracy, loss)))  # type: ignore[arg-type]
    finite = [
        (accuracy if by == "accuracy" else 0.0, -loss, -step)
        for step, (accuracy, loss) in enumerate(results, 1)
        if math.isfinite(loss)
    ]
    best_step = -max(finite)[2] if finite else -1
    assert found.state.best_step == best_step
    assert found.state.improved_step == improved
    assert found.state.measured_step == len(results)
    if finite:
        assert answers[best_step - 1]
        assert not any(answers[best_step:])
        assert (found.state.best_accuracy, found.state.best_loss) == results[best_step - 1]
    assert found.state.last_evaluation == {"split": "val", "step": len(results), "accuracy": results[-1][0]}


class _Result:
    """An evaluation of which nothing but its two figures matters."""

    def __init__(self, accuracy: float, loss: float) -> None:
        self.accuracy, self.loss = accuracy, loss


_EVALUATORS: dict[str, Evaluator] = {}


def _choosing(by: str) -> Evaluator:
    """An evaluator that chooses the best by accuracy or loss and has measured nothing."""
    if by not in _EVALUATORS:
        _EVALUATORS[by] = evaluator(Session(None), ema=False, eval__best_by=by)
    found = _EVALUATORS[by]
    state = found.state
    return replace(found, state=TrainState(state.model, state.optimizer, state.schedule))


def test_a_result_of_other_images_chooses_nothing() -> None:
    found = _choosing("accuracy")
    result: Evaluation = _Result(1.0, 0.0)  # type: ignore[assignment]
    assert not found._note_result("test", 3, result)
    assert (found.state.best_step, found.state.measured_step, found.state.improved_step) == (-1, -1, -1)
