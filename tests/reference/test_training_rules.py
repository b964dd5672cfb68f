"""Loss, optimizers, average, schedule and batches of the trainer, each compared with the reference's formulas."""

from __future__ import annotations

import math
from random import Random

import pytest
import torch
from torch import Tensor, nn

from tests.reference.training_cases import random_case, random_schedule
from tests.reference.training_comparison import MUON
from tests.reference.training_rules import averaged, class_weights, learning_rate, losses, updated
from tests.reference.training_sides import narrow_model, shake
from trainer.config.lr_schedule import schedule_of
from trainer.config.schema import Config
from trainer.data.draws import EpochDraws
from trainer.model.ema import ModelEma
from trainer.model.resnet import Head, losses_of
from trainer.training.batch_source import loss_weights, plan_of
from trainer.training.optimizer import build_optimizer, load_momentum_state, momentum_state


def drawn(shape: torch.Size, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_losses_are_cross_entropy_with_smoothed_labels(smoothing: float, dtype: torch.dtype) -> None:
    logits, labels = (3 * drawn(torch.Size((20, 4)), 0)).to(dtype), [index % 4 for index in range(20)]
    expected = losses(logits.double(), labels, smoothing=smoothing, class_weights=[1.0] * 4)
    actual = losses_of(logits, torch.tensor(labels), label_smoothing=smoothing)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("counts", [(5, 5), (6, 3, 1), (1, 90, 9, 100)])
def test_balanced_classes_have_equal_total_weight(counts: tuple[int, ...]) -> None:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    config = Config.model_validate({"data": {"balance": "loss"}})
    weights_K = loss_weights(config, torch.tensor(labels), torch.device("cpu"))
    assert weights_K is not None
    assert weights_K.tolist() == pytest.approx(class_weights(config, labels))
    total_weights = [count * weight for count, weight in zip(counts, weights_K.tolist(), strict=True)]
    assert total_weights == pytest.approx([len(labels) / len(counts)] * len(counts))
    assert loss_weights(Config(), torch.tensor(labels), torch.device("cpu")) is None


@pytest.mark.parametrize("seed", range(24))
def test_updates_equal_the_formulas(seed: int) -> None:
    """Three updates with random gradients; some parameters are frozen."""
    random = Random(seed)
    config = random_case(random).config()
    model = narrow_model(config.model, 3, seed)
    shake(model, seed)
    layout = random.choice([torch.channels_last, torch.contiguous_format])
    model = model.to(memory_format=layout)
    optimizer = build_optimizer(model, config.optim, precision=random.choice(["fp32", "fp16"]))
    names = dict(model.named_parameters())
    load_momentum_state(model, optimizer, {name: drawn(p.shape, 7) for name, p in names.items()})
    weights = {name: parameter.detach().double().clone() for name, parameter in names.items()}
    momenta = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    momenta |= {name: buffer.double().clone() for name, buffer in momentum_state(model, optimizer).items()}
    frozen = {name for name in names if random.random() < 0.2}
    for step in range(3):
        rate = config.optim.lr * random.choice([1.0, 0.3])
        optimizer.set_lr(rate)
        for name, parameter in names.items():
            gradient = drawn(parameter.shape, 10 * seed + step)
            parameter.grad = None if name in frozen else gradient.contiguous()
            if name not in frozen:
                weights[name], momenta[name] = updated(
                    name, weights[name], gradient.double(), momenta[name], config.optim, rate
                )
        optimizer.step()
    for name, parameter in names.items():
        by_muon = config.optim.name == "muon" and parameter.ndim == 4
        # A random matrix has no small singular values, so a hundredth of Muon's amplification of rounding is enough.
        tolerance = 1e-6 * (MUON / 100 if by_muon else 1.0)
        torch.testing.assert_close(parameter.detach().double(), weights[name], rtol=tolerance, atol=tolerance, msg=name)
    for name, buffer in momentum_state(model, optimizer).items():
        torch.testing.assert_close(buffer.double(), momenta[name], rtol=1e-5, atol=1e-6)


def test_the_average_equals_the_formula_over_all_steps() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    ema = ModelEma(model, 0.7)
    expected = {name: value.double() for name, value in model.state_dict().items() if value.is_floating_point()}
    for step in range(1, 26):
        with torch.no_grad():
            for name, value in model.state_dict().items():
                if name in expected:
                    value += drawn(value.shape, step)
                    expected[name] = averaged(expected[name], value.double(), decay=0.7, step=step)
        ema.update(step)
    average = ema.model.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(average[name].double(), value, rtol=1e-6, atol=1e-6)
    assert not any(torch.equal(average[name], model.state_dict()[name]) for name in expected)


@pytest.mark.parametrize("seed", range(40))
def test_the_learning_rate_follows_its_formula(seed: int) -> None:
    """At every step, with edits, and after another number of epochs."""
    random = Random(seed)
    epochs, steps_per_epoch = random.randint(1, 12), random.randint(1, 7)
    config = Config.model_validate(
        {"train": {"epochs": epochs}, "optim": {"lr": 0.3}, "schedule": random_schedule(random, epochs)}
    )
    schedule = schedule_of(config, steps_per_epoch=steps_per_epoch)
    edits: list[tuple[int, float]] = []
    shortest = epochs
    for _ in range(random.randint(0, 3)):
        if random.random() < 0.5:
            edits.append((random.randrange(epochs * steps_per_epoch), random.choice([0.5, 2.0])))
            schedule.edit(*edits[-1])
        else:
            epochs = random.randint(1, 20)
            shortest = min(shortest, epochs)
            schedule.replan(epochs)

    def expected(step: int, edits: list[tuple[int, float]]) -> float:
        return learning_rate(
            config, step, epochs=epochs, shortest=shortest, steps_per_epoch=steps_per_epoch, edits=edits
        )

    steps = range(epochs * steps_per_epoch)
    assert schedule.total_steps == len(steps)
    assert [schedule.at(step) for step in steps] == pytest.approx([expected(step, edits) for step in steps], rel=1e-9)
    counted, rates = schedule.samples()
    assert counted[0] == 1
    assert counted[-1] == len(steps)
    assert rates == pytest.approx([expected(int(step) - 1, []) for step in counted], rel=1e-5)
    assert [schedule.edited(step) for step in steps] == pytest.approx(
        [math.prod(factor for start, factor in edits if start <= step) for step in steps]
    )


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_smaller_last_batch_needs_two_images_per_micro_batch(parts: int, drop_last: bool) -> None:
    config = Config.model_validate(
        {"data": {"batch_size": 12, "drop_last": drop_last}, "train": {"grad_accum_steps": parts}}
    )
    for images in range(12, 37):
        plan = plan_of(config, torch.zeros(images, dtype=torch.long))
        whole, rest = divmod(images, 12)
        assert plan.steps_per_epoch == (whole if drop_last or rest < 2 * parts else whole + 1)
        order = plan.order(0)
        shown = [row for step in range(plan.steps_per_epoch) for row in plan.rows_of(order, step)[1].tolist()]
        assert shown == order[: len(shown)].tolist()
        assert len(shown) == (12 * whole if plan.steps_per_epoch == whole else images)


@pytest.mark.parametrize("rate", [0.25, 0.6])
def test_dropout_zeroes_a_share_of_the_features_and_scales_the_others(rate: float) -> None:
    head = Head(50, 50, dropout=rate).train()
    with torch.no_grad():
        head.weight.copy_(torch.eye(50))
        head.bias.zero_()
    ones = torch.ones(400, 50)
    head.aim(torch.arange(400), EpochDraws(3, epoch=1))
    seen = head(ones).detach()
    dropped = float((seen == 0).float().mean())
    assert dropped == pytest.approx(rate, abs=0.02)  # four standard deviations of 20,000 draws
    assert seen[seen != 0].tolist() == pytest.approx([1 / (1 - rate)] * int((seen != 0).sum()))
    by_unit, by_image = (seen == 0).float().mean(0), (seen == 0).float().mean(1)
    assert float(by_unit.std()) < 0.05, "every unit is dropped equally often"
    assert float(by_image.std()) < 0.15
    head.aim(torch.arange(100, 200), EpochDraws(3, epoch=1))
    assert torch.equal(head(ones[:100]), seen[100:200]), "a mask depends on the position alone"
    head.aim(torch.arange(400), EpochDraws(3, epoch=2))
    assert float((head(ones) == seen).float().mean()) < 0.9, "and on the epoch"
    assert torch.equal(head.eval()(ones), ones)
