"""The JSON part of a checkpoint: the run that made it, and how far that run was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The run that made a checkpoint. Checkpoints of a run differ in it only after a change of settings.

    Attributes:
        classes: Class names by label.
        fingerprint: Hash of the data.
        identity: Facts behind the fingerprint, to explain a difference.
        left_out: Short summary of files that could not be read; None in older checkpoints.
        selection_split: Split that selects the best checkpoint, `val` or `test`.
        mean: Mean of each channel, 0 to 1; `std` has the same scale.
        preprocess: Complete conversion of a picture to the network's input.
        choices: Choices made by timing.
        surroundings: Facts from `trainer.model.determinism.surroundings`; empty in older checkpoints.
    """

    run: str
    config: dict[str, Any]
    classes: list[str]
    fingerprint: str
    identity: dict[str, str]
    left_out: str | None = None
    selection_split: str
    mean: list[float]
    std: list[float]
    preprocess: dict[str, Any]
    choices: dict[str, Any]
    surroundings: dict[str, Any] = field(default_factory=dict)
    steps_per_epoch: int
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StateRecord:
    """Position of a run, apart from tensors. `TrainState` and `BestCheckpoint` in `trainer.training` explain the fields.

    Attributes:
        epoch_sums: Training metrics of the epoch in progress.
        loss_scale: Scale, and good steps since it last changed; empty unless the run trains in fp16.
        lr_edits: Step and factor of each change of the learning rate.
        shortest_plan: Fewest epochs ever planned; like `improved_step`, None in older checkpoints.
    """

    step: int
    epoch: int
    epoch_step: int
    epoch_sums: dict[str, Any]
    evaluation_due: bool
    loss_scale: list[float] = field(default_factory=list)
    lr_edits: list[tuple[int, float]]
    shortest_plan: int | None = None
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
