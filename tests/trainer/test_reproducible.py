"""Bit for bit, and what stands in its way."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.conftest import ConfigMaker
from tests.running import events_of, new_run, resumed_run, start, train, view_of, wait_for
from trainer.checkpoint import CheckpointFolder, read_checkpoint
from trainer.reproducible import set_deterministic, surroundings, take_over
from trainer.run import events as ev
from trainer.run.view import RunView

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def leave_torch_as_it_was() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def went_on(stopped: int, view: RunView) -> bool:
    return view.step > stopped


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_that_was_stopped_three_times_in_an_epoch_ends_bit_for_bit(
    tmp_path: Path, make_config: ConfigMaker, precision: str
) -> None:
    config = make_config(
        "run.deterministic=true", f"run.precision={precision}", "run.weight_gradient=matmul", "model.dropout=0.2",
        "data.flip=alternate", "data.cutout=3", "data.batch_size=16", "train.epochs=1",
    )  # fmt: skip
    straight = train(config, tmp_path).run.run_dir
    assert torch.are_deterministic_algorithms_enabled()
    run = new_run(config, tmp_path)
    for _ in range(3):
        thread, stopped = start(run), view_of(run.run_dir).step
        wait_for(run.run_dir, partial(went_on, stopped))
        thread.stop("SIGTERM", 143)
        assert thread.join(60)
        run = resumed_run(run.run_dir, tmp_path)
    thread = start(run)
    assert thread.join(120)
    views = [view_of(r) for r in (straight, run.run_dir)]
    assert len(events_of(run.run_dir, ev.Resumed)) == 3
    assert [view.step for view in views] == [views[0].total_steps] * 2
    whole, patched = (read_checkpoint(CheckpointFolder(r, keep=2).at(views[0].step)) for r in (straight, run.run_dir))
    assert whole.tensors.keys() == patched.tensors.keys()
    assert all(torch.equal(tensor, patched.tensors[name]) for name, tensor in whole.tensors.items())
    assert whole.meta | {"run": ""} == patched.meta | {"run": ""}
    for name in ("train_loss", "train_accuracy", "lr", "eval_loss", "eval_accuracy"):
        assert getattr(views[0], name) == getattr(views[1], name), name
    assert events_of(run.run_dir, ev.Warned) == []


def test_an_operation_that_differs_from_run_to_run_is_refused_by_name() -> None:
    values, twice = torch.zeros(3), torch.tensor([0, 0])
    set_deterministic(True)
    with pytest.raises(RuntimeError, match=r"put_.* deterministic"):
        values.put_(twice, torch.ones(2))
    set_deterministic(False)
    values.put_(twice, torch.ones(2))


def test_a_resume_works_with_as_many_threads_as_before() -> None:
    recorded = surroundings(CPU)
    torch.set_num_threads(recorded["threads"] + 1)
    assert take_over(recorded, CPU) == []
    assert torch.get_num_threads() == recorded["threads"]


def test_what_is_not_as_it_was_is_named() -> None:
    (warning,) = take_over(surroundings(CPU) | {"torch": "2.6.0", "device": "another"}, CPU)
    assert "torch 2.6.0 -> " in warning
    assert "device another -> " in warning
    (warning,) = take_over({}, CPU)
    assert "does not say" in warning
