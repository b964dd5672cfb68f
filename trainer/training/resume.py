"""Checks a checkpoint against the data and the configuration of a resume, and restores its state."""

from __future__ import annotations

import dataclasses

from trainer.config.schema import Config
from trainer.data.prepare import PreparedData
from trainer.errors import CheckpointError
from trainer.model.checkpoint import Checkpoint
from trainer.training.state import TrainState


def refuse_other_data(data: PreparedData, checkpoint: Checkpoint) -> None:
    """Refuse to resume with other data than the run started with: a CheckpointError that says what differs."""
    run, dataset = checkpoint.run, data.dataset
    if dataset.fingerprint == run.fingerprint:
        if run.left_out not in (None, dataset.left_out):
            raise CheckpointError(
                f"the unreadable files have changed since this run started: {run.left_out} then, {dataset.left_out} now. "
                f"Images would change places. Put the files back as they were, or start a new run from these weights with "
                f"model.init_from"
            )
        return
    then, now = run.identity, dataset.identity
    changed = [key for key in sorted({*then, *now}) if then.get(key) != now.get(key)]
    lines = [f"  {key}: {then.get(key, 'none')} -> {now.get(key, 'none')}" for key in changed if key != "classes"]
    if "classes" in changed:
        before, after = set(then.get("classes", "").split("\n")), set(now.get("classes", "").split("\n"))
        gone, new = sorted(before - after), sorted(after - before)
        lines.append(f"  classes gone: {', '.join(gone) or 'none'}; new: {', '.join(new) or 'none'}")
    raise CheckpointError(
        "the data has changed since this run started:\n" + "\n".join(lines)
        + "\nPut the old data back, or start a new run from these weights with model.init_from"
    )  # fmt: skip


def restore(state: TrainState, checkpoint: Checkpoint, config: Config) -> list[str]:
    """Restore a state and return warnings about changed settings; CheckpointError when data or model do not fit."""
    run, now = checkpoint.run, state.schedule.steps_per_epoch
    if run.steps_per_epoch != now:
        raise CheckpointError(f"the checkpoint has {run.steps_per_epoch} steps per epoch, but the data now give {now}")
    try:
        state.restore(checkpoint)
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint does not fit the model: {error}") from error
    if run.config["eval"].get("best_by", "accuracy") != config.eval.best_by:
        # Patience counted by accuracy does not apply to the loss.
        state.best.restart_patience()
    before = dataclasses.replace(state.schedule, epochs=int(run.config["train"]["epochs"]))
    if state.finished or not state.step or before.epochs == config.train.epochs:
        return []
    old, new = before.at(min(state.step, before.total_steps - 1)), state.schedule.at(state.step)
    risen = f"the learning rate rises from {old:.3g} to {new:.3g} because the plan is now {config.train.epochs} epochs"
    return [f"{risen}; key l changes it"] if new > 1.01 * old else []
