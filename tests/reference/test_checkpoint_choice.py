"""The checkpoints selected by `default`, `best`, `latest` and a step, and the weights that are evaluated."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.checkpoints import checkpoint_of
from trainer.errors import CheckpointError
from trainer.model.checkpoint import Checkpoint, write_checkpoint
from trainer.model.checkpoint_folder import CheckpointFolder
from trainer.model.initial_weights import find_initial_weights
from trainer.run.folder.run_dir import RunDir


def checkpoint(step: int, selection: str, *, ema: bool = False) -> Checkpoint:
    """A checkpoint whose weights are its step; the averaged ones are larger by 100."""
    tensors = {"model.fc.weight": torch.full((2,), float(step)), "momentum.fc.weight": torch.full((2,), -1.0)}
    if ema:
        tensors["ema.fc.weight"] = torch.full((2,), step + 100.0)
    statistics = {"mean": [0.1] * 3, "std": [0.2] * 3}
    return checkpoint_of(tensors, step=step, classes=["b", "a"], selection_split=selection, **statistics)


def folder(tmp_path: Path, selection: str, *, best: int | None, steps: tuple[int, ...] = (1, 2, 3)) -> CheckpointFolder:
    """A run's checkpoints; the newest is `latest`."""
    run_dir = RunDir(tmp_path / "run")
    run_dir.checkpoints.mkdir(parents=True)
    checkpoints = CheckpointFolder(run_dir, keep=9)
    for step in steps:
        write_checkpoint(checkpoints.at(step), checkpoint(step, selection, ema=True))
        checkpoints.publish(step, best=step == best, pinned=False)
    return checkpoints


@pytest.mark.parametrize(
    ("selection", "best", "chosen"),
    [("val", 1, 1), ("test", 1, 3), ("val", None, 3), ("test", None, 3), ("", 1, 3), ("val", 3, 3), ("val", 2, 2)],
)
def test_the_default_is_the_best_if_chosen_on_val_or_else_the_latest(
    tmp_path: Path, selection: str, best: int | None, chosen: int
) -> None:
    checkpoints = folder(tmp_path, selection, best=best)
    assert checkpoints.choose("default") == checkpoints.at(chosen)
    assert checkpoints.choose("latest") == checkpoints.at(3)
    assert checkpoints.choose("2") == checkpoints.at(2)
    if best is not None:
        assert checkpoints.choose("best") == checkpoints.at(best)
    weights = find_initial_weights(str(tmp_path / "run"), tmp_path, lambda *_: None)
    assert weights.state["fc.weight"].tolist() == [chosen + 100.0] * 2
    assert weights.statistics == ([0.1] * 3, [0.2] * 3)
    assert weights.classes == ("b", "a"), "in the order of the labels"


@pytest.mark.parametrize("which", ["best", "7"])
def test_a_missing_checkpoint_is_refused_with_the_available_steps(tmp_path: Path, which: str) -> None:
    with pytest.raises(CheckpointError, match=f"no checkpoint '{which}'; steps there: 1, 2, 3"):
        folder(tmp_path, "val", best=None).choose(which)


def test_averaged_weights_are_evaluated_if_there_are_any() -> None:
    plain, averaged = checkpoint(5, "val"), checkpoint(5, "val", ema=True)
    assert plain.evaluated_weights["fc.weight"].tolist() == [5.0] * 2
    assert averaged.evaluated_weights["fc.weight"].tolist() == [105.0] * 2
    assert (plain.weights_kind, averaged.weights_kind) == ("raw", "ema")
    assert set(averaged.evaluated_weights) == {"fc.weight"}


def test_steps_are_sorted_by_number_and_rotation_keeps_best_and_newest(tmp_path: Path) -> None:
    checkpoints = folder(tmp_path, "val", best=9, steps=(9, 10, 100, 99_999_999))
    assert checkpoints.steps() == [9, 10, 100, 99_999_999]
    newest, problems = checkpoints.newest_valid()
    assert newest is not None
    assert (newest.step, problems) == (99_999_999, {})
    CheckpointFolder(RunDir(tmp_path / "run"), keep=2).publish(100, best=False, pinned=False)
    assert checkpoints.steps() == [9, 100, 99_999_999]
