"""The learning rate at each step: shapes, edits, and changes of the length."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from trainer.config.loader import build_config, load_config
from trainer.config.lr_schedule import LrSchedule, schedule_of


def schedule(*overrides: str, steps_per_epoch: int = 10) -> LrSchedule:
    return schedule_of(build_config({}, {}, "test", list(overrides)), steps_per_epoch=steps_per_epoch)


def test_a_linear_schedule_rises_and_falls() -> None:
    lr = schedule("train.epochs=10", "optim.lr=1.0", "schedule.warmup=0.2", "schedule.warmup_start=0.2")
    assert lr.at(0) == pytest.approx(0.2)
    assert lr.at(20) == pytest.approx(1.0)
    assert lr.at(60) == pytest.approx(0.5)
    assert lr.at(99) == pytest.approx(1 / 80)


def test_cosine_per_epoch_equals_torchs() -> None:
    lr = schedule_of(load_config("cifar-tutorial").config, steps_per_epoch=391)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=200)
    for epoch in range(200):
        expected = optimizer.param_groups[0]["lr"]
        assert lr.at(epoch * 391) == pytest.approx(expected, rel=1e-9)
        assert lr.at(epoch * 391 + 390) == lr.at(epoch * 391)
        optimizer.step()
        scheduler.step()


def test_a_step_schedule_multiplies_at_milestones() -> None:
    lr = schedule(
        "train.epochs=9", "optim.lr=1.0", "schedule.name=step", "schedule.milestones=[3, 6]", "schedule.warmup=0.0"
    )  # fmt: skip
    assert [lr.at(epoch * 10) for epoch in (0, 2, 3, 5, 6, 8)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_an_edit_scales_only_later_steps() -> None:
    lr = schedule("train.epochs=10", "optim.lr=1.0")
    before = [lr.at(step) for step in range(100)]
    lr.edit(50, 0.5)
    lr.edit(70, 0.1)
    after = [lr.at(step) for step in range(100)]
    assert after[:50] == before[:50]
    assert after[50:70] == pytest.approx([0.5 * rate for rate in before[50:70]])
    assert after[70:] == pytest.approx([0.05 * rate for rate in before[70:]])


def test_a_constant_schedule_stays_constant() -> None:
    lr = schedule("schedule.name=constant", "schedule.warmup=0.0", "optim.lr=0.3")
    assert {lr.at(step) for step in range(100)} == {0.3}


@pytest.mark.parametrize("unit", ["step", "epoch"])
@pytest.mark.parametrize("name", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("plans", [(12, 60), (12, 20, 100), (100, 15, 100), (10, 11)])
def test_a_longer_plan_does_not_warm_up_again(unit: str, name: str, plans: tuple[int, ...]) -> None:
    first, *others = plans
    lr = schedule(f"schedule.name={name}", f"schedule.unit={unit}", f"train.epochs={first}", "schedule.warmup=0.2")
    warmed_up = round(0.2 * min(plans) * 10) + 10
    for epochs in others:
        lr.replan(epochs)
        rates = [lr.at(step) for step in range(warmed_up, lr.total_steps)]
        assert all(later <= earlier for earlier, later in pairwise(rates)), "the rate never rises after the warm-up"
        again = schedule(
            f"schedule.name={name}", f"schedule.unit={unit}", f"train.epochs={epochs}", "schedule.warmup=0.2"
        )
        again.shortest = lr.shortest  # as a resume restores it
        assert [again.at(step) for step in range(lr.total_steps)] == [lr.at(step) for step in range(lr.total_steps)]


def test_a_longer_plan_continues_its_warm_up() -> None:
    lr = schedule("train.epochs=10", "schedule.warmup=0.5")
    before = [lr.at(step) for step in range(50)]
    lr.replan(40)
    assert [lr.at(step) for step in range(50)] == before
