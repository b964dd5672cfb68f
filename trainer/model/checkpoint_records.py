"""The JSON part of a checkpoint: the run that made it, and how far that run was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The run that made a checkpoint. Checkpoints of a run differ in it only after a change of settings."""

    run: str
    config: dict[str, Any]
    classes: list[str]  # class names by label
    fingerprint: str  # hash of the data
    identity: dict[str, str]  # facts behind the fingerprint, to explain a difference
    left_out: str | None = None  # short summary of files that could not be read; None in older checkpoints
    selection_split: str  # split that selects the best checkpoint, `val` or `test`
    mean: list[float]  # mean of each channel, 0 to 1; `std` has the same scale
    std: list[float]
    preprocess: dict[str, Any]  # complete conversion of a picture to the network's input
    choices: dict[str, Any]  # choices made by timing
    surroundings: dict[str, Any] = field(default_factory=dict)  # device, torch, threads; empty in older checkpoints
    steps_per_epoch: int
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StateRecord:
    """Position of a run, apart from tensors; `TrainState` and `BestCheckpoint` explain the fields, partly by other names."""

    step: int
    epoch: int
    epoch_step: int
    epoch_sums: dict[str, Any]  # training metrics of the epoch in progress
    evaluation_due: bool
    loss_scale: list[float] = field(default_factory=list)  # scale, and good steps since it changed; empty without fp16
    lr_edits: list[tuple[int, float]]  # step and factor of each change of the learning rate
    shortest_plan: int | None = None  # fewest epochs ever planned; like `improved_step`, None in older checkpoints
    unfrozen_by_key: int = 0
    unfrozen_step: int = -1
    measured_step: int = -1
    tested_step: int = -1
    improved_step: int | None = None
    best_accuracy: float | None
    best_loss: float | None = None
    best_step: int
    last_evaluation: dict[str, Any] | None


_RUN, _STATE = TypeAdapter(RunRecord), TypeAdapter(StateRecord)


def records_in(meta: Any) -> tuple[RunRecord, StateRecord]:
    """Check the JSON part of a checkpoint; ValueError that names the first missing or wrongly typed field."""
    try:
        return _RUN.validate_python(meta), _STATE.validate_python(meta)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'metadata'}: {first['msg']}") from None
