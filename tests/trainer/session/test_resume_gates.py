"""Checks of a resume against its checkpoint: the same data and plan pass, a single difference is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.support.checkpoints import checkpoint_of, run_record
from tests.support.small_session import Small, small_session
from trainer.config.loader import build_config
from trainer.errors import CheckpointError, ConfigError
from trainer.model.checkpoint import Checkpoint
from trainer.training.batch_source import plan_of
from trainer.training.resume import refuse_other_data, restore

IDENTITY = {"files": "36", "split": "seed 0", "classes": "a\nb"}
RECORD = {"fingerprint": "f", "identity": IDENTITY, "left_out": "no files"}


def resume(found: dict[str, Any], recorded: dict[str, Any]) -> None:
    data: Any = SimpleNamespace(dataset=SimpleNamespace(**(RECORD | found)))
    refuse_other_data(data, checkpoint_of({}, **recorded))


def test_the_same_data_can_be_resumed() -> None:
    resume({}, RECORD)
    resume({"identity": {}}, RECORD)  # only the fingerprint counts
    resume({}, {key: RECORD[key] for key in ("fingerprint", "identity")})  # an older checkpoint
    resume({"left_out": "2 files"}, RECORD | {"left_out": "2 files"})


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"fingerprint": "g"}, "the data has changed since this run started"),
        ({"fingerprint": "g", "identity": IDENTITY | {"files": "35"}}, "files: 36 -> 35"),
        ({"fingerprint": "g", "identity": IDENTITY | {"more": "x"}}, "more: none -> x"),
        ({"fingerprint": "g", "identity": IDENTITY | {"classes": "a\nc"}}, "classes gone: b; new: c"),
        ({"left_out": "1 file (abc)"}, r"no files then, 1 file \(abc\) now"),
    ],
)
def test_other_data_is_refused(found: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        resume(found, RECORD)


@pytest.fixture(name="session")
def _session(tmp_path: Path) -> Iterator[Small]:
    with small_session(tmp_path / "run") as session:
        yield session


def snapshot(session: Small, **meta: Any) -> Checkpoint:
    """A snapshot with the state's own ten steps per epoch and two epochs, unless changed."""
    configured = {"train": {"epochs": 2}, "eval": {"best_by": "accuracy"}}
    record = run_record(**({"steps_per_epoch": 10, "config": configured} | meta))
    return session.trainer.state.snapshot(record).completed()  # type: ignore[no-any-return]


CONFIG = build_config({}, {}, "test", ["train.epochs=2"])


def test_a_checkpoint_of_the_same_network_and_steps_is_restored(session: Small) -> None:
    state = session.trainer.state
    state.step = 7
    saved = snapshot(session)
    with torch.no_grad():
        state.model[0].weight.zero_()
    state.step = 0
    assert restore(state, saved, CONFIG) == []
    assert state.step == 7
    assert torch.equal(state.model.state_dict()["0.weight"], saved.tensors["model.0.weight"])


@pytest.mark.parametrize("steps", [9, 11])
def test_another_number_of_steps_per_epoch_is_refused(session: Small, steps: int) -> None:
    with pytest.raises(CheckpointError, match=f"the checkpoint has {steps} steps per epoch, but the data now give 10"):
        restore(session.trainer.state, snapshot(session, steps_per_epoch=steps), CONFIG)


@pytest.mark.parametrize("change", ["missing tensor", "additional tensor", "another shape"])
def test_a_checkpoint_of_another_network_is_refused(session: Small, change: str) -> None:
    saved = snapshot(session)
    if change == "missing tensor":
        del saved.tensors["model.3.bias"]
    elif change == "additional tensor":
        saved.tensors["model.4.bias"] = torch.zeros(1)
    else:
        saved.tensors["model.3.bias"] = torch.zeros(3)
    with pytest.raises(CheckpointError, match="the checkpoint does not fit the model"):
        restore(session.trainer.state, saved, CONFIG)


@pytest.mark.parametrize(
    ("batch_size", "parts", "fits"), [(8, 1, True), (8, 4, True), (8, 8, False), (9, 4, False), (12, 6, True), (2, 1, True)]
)  # fmt: skip
def test_a_batch_is_divided_into_equal_parts_of_at_least_two_images(batch_size: int, parts: int, fits: bool) -> None:
    config = build_config({}, {}, "test", [f"data.batch_size={batch_size}"])
    train = config.train.model_copy(update={"grad_accum_steps": parts})
    config = config.model_copy(update={"train": train})
    labels_N = torch.zeros(20, dtype=torch.long)
    if fits:
        plan = plan_of(config, labels_N)
        assert (plan.num_images, plan.batch_size, plan.smallest) == (20, batch_size, 2 * parts)
        return
    with pytest.raises(ConfigError, match=f"must be divisible by {parts}, with 2 images or more in each part"):
        plan_of(config, labels_N)
