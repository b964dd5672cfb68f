"""Builds a trainer from a configuration: device, data, model, optimizer, numerics, and the state of a checkpoint."""

from __future__ import annotations

import dataclasses
import platform
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer.config.freezing import frozen_stages, stage_of
from trainer.config.lr_schedule import schedule_of
from trainer.config.schema import Config
from trainer.config.setting_checks import setting_warnings
from trainer.data.augment.augment import Augment
from trainer.data.batches.batches import Batch, Batches, Plan, ResidentBatches
from trainer.data.batches.lost_images import LostImages
from trainer.data.batches.stream import StreamedBatches
from trainer.data.dataset import ResidentSplit, Split
from trainer.data.image_folder import FolderSplit
from trainer.data.prepare import PreparedData, prepare_data, worker_count
from trainer.errors import CheckpointError, ConfigError
from trainer.host.progress import Progress
from trainer.model.checkpoint import Checkpoint
from trainer.model.determinism import set_deterministic, surroundings, take_over
from trainer.model.device import choose_device, describe_device
from trainer.model.ema import ModelEma
from trainer.model.initial_weights import InitialWeights, find_initial_weights
from trainer.model.resnet import build_model, describe_model, set_train_mode
from trainer.model.versions import software_versions
from trainer.model.weight_loading import load_initial_weights
from trainer.run.folder.run_dir import RunDir, write_env
from trainer.run.log.events import Started, Warned
from trainer.training.autotune import autotune_numerics, recorded_numerics
from trainer.training.callbacks import LoopCallbacks
from trainer.training.distributed import Peers
from trainer.training.evaluator import Evaluator
from trainer.training.features import FeatureBatches
from trainer.training.loop import Trainer
from trainer.training.loss_scale import LossScale
from trainer.training.metrics import StepMetrics, Stopwatch
from trainer.training.optimizer import build_optimizer
from trainer.training.state import TrainState
from trainer.training.step import TrainStep


@dataclass(frozen=True, kw_only=True)
class Built:
    """A trainer that is ready to run, and what to report about it.

    Attributes:
        choices: Choices made by timing, for the log, the checkpoint and a resume.
        warnings: Warnings for the user.
    """

    trainer: Trainer
    choices: dict[str, Any]
    warnings: list[str]


@dataclass(frozen=True)
class Source:
    """Source of training batches."""

    split: Split
    plan: Plan
    device: torch.device
    epochs: int
    warn: Callable[[str], None]
    lost: LostImages

    def batches(self, workers: int) -> Batches:
        """Batches of the kind that fits the split."""
        if isinstance(self.split, FolderSplit):
            return StreamedBatches(
                self.split, self.plan, self.device,
                workers=workers, epochs=self.epochs, warn=self.warn, lost=self.lost,
            )  # fmt: skip
        assert isinstance(self.split, ResidentSplit)
        return ResidentBatches(self.split, self.plan, self.device)

    def trial_batch(self) -> Batch:
        """The first batch of the run, decoded here: a trial starts no worker processes."""
        return next(batch for batch in self.batches(workers=0).epoch(0, 0) if batch is not None)


def build_trainer(
    config: Config, runs_dir: Path, hooks: LoopCallbacks, progress: Progress, checkpoint: Checkpoint | None,
    *, peers: Peers | None = None,
) -> Built:  # fmt: skip
    """Build everything that the loop needs.

    Args:
        config: Configuration of the run.
        runs_dir: Folder in which `model.init_from` finds runs.
        hooks: Callbacks of the loop.
        progress: Called with what is being done; may raise to cancel.
        checkpoint: Checkpoint to resume from, or None.
        peers: Processes that train together, waiting for the leader's messages; None when this process trains alone.

    Raises:
        R18Error: When the device, the data or the weights do not match the configuration.
    """
    set_deterministic(config.run.deterministic)
    device = choose_device(config.run.device)
    warnings: list[str] = []
    if checkpoint is not None and config.run.deterministic:
        warnings += take_over(checkpoint.meta.get("surroundings", {}), device)
    initial = _initial_weights(config, runs_dir, progress, checkpoint)
    data = _prepare_data(config, device, progress, initial, checkpoint)
    warnings += [f"cannot read {path}: {reason}" for path, reason in data.dataset.skipped]
    warnings += data.dataset.remarks
    warnings += setting_warnings(config, len(data.dataset.splits["train"]))
    warnings += [f"{config.data.root}: {note}" for note in data.dataset.notes]
    progress("building the model", None)
    model = _build_model(config, data, initial, warnings).to(device)
    train_labels_N = data.dataset.splits["train"].labels_N
    plan = plan_of(config, train_labels_N, peers)

    def warn(message: str) -> None:
        hooks.publish(Warned(message=message))

    source = Source(data.dataset.splits["train"], plan, device, config.train.epochs, warn, LostImages(warn))
    augment = Augment(config=config.data, normalize=data.normalize, seed=config.run.seed)
    if checkpoint is not None:
        numerics = recorded_numerics(config, checkpoint.meta["choices"], device)
        choices = checkpoint.meta["choices"] | dataclasses.asdict(numerics)
    else:
        numerics, timings = autotune_numerics(config, model, augment, source.trial_batch, progress, device=device)
        choices = dataclasses.asdict(numerics) | {"timings_ms": timings, "cache": data.cache}
    if peers is not None:
        peers.tell(
            {
                "fingerprint": data.dataset.fingerprint, "mean": data.mean, "std": data.std,
                "numerics": dataclasses.asdict(numerics), "micro_batches": choices.get("micro_batches"),
                "threads": torch.get_num_threads(),
            }
        )  # fmt: skip
    model = numerics.apply_to(model)
    optimizer = build_optimizer(model, config.optim, precision=numerics.precision)
    decay = config.train.ema_decay
    ema = None if decay is None else ModelEma(model, decay)
    loss_scale = LossScale(device, precision=numerics.precision)
    state = TrainState(model, optimizer, schedule_of(config, steps_per_epoch=plan.steps_per_epoch), ema, loss_scale)
    if checkpoint is not None:
        warnings += _restore(state, checkpoint, config)
    batches = source.batches(worker_count(config.data))
    weights_K = loss_weights(config, train_labels_N, device)
    train_step = TrainStep(
        model, optimizer, augment, config, numerics,
        class_weights_K=weights_K, micro_batches=choices.get("micro_batches"), peers=peers, loss_scale=loss_scale,
    )  # fmt: skip
    choices["cuda_graph"] = train_step.not_captured or "yes"
    stopwatch = Stopwatch()
    evaluator = Evaluator(
        config=config, data=data, state=state, train_step=train_step, numerics=numerics, stopwatch=stopwatch, hooks=hooks,
        device=device, lost=source.lost,
    )  # fmt: skip
    loop = Trainer(
        config=config, data=data, batches=batches, feature_batches=FeatureBatches(plan, train_labels_N, device),
        state=state, train_step=train_step, evaluator=evaluator, metrics=StepMetrics(device), stopwatch=stopwatch, hooks=hooks,
        device=device, last_save=time.monotonic(),
    )  # fmt: skip
    # With the stages that are frozen now: a save before the next step and a repeated evaluation need them.
    loop.train_step.prepare(loop.frozen_now)
    loop.train_step.share_state()
    return Built(trainer=loop, choices=choices, warnings=warnings)


def plan_of(config: Config, labels_N: Tensor, peers: Peers | None = None) -> Plan:
    """Divide an epoch into steps, and a step into the parts of several processes.

    Args:
        config: Configuration of the run.
        labels_N: Labels of the training images, int64 on the CPU.
        peers: Processes that train together. A smaller last batch is then dropped: it may not have equally many images for each.

    Raises:
        ConfigError: When a batch cannot be divided equally among all processes.
    """
    rank, world = (0, 1) if peers is None else (peers.rank, peers.world)
    parts = world * config.train.grad_accum_steps
    if config.data.batch_size % parts or config.data.batch_size < 2 * parts:
        raise ConfigError(
            f"data.batch_size {config.data.batch_size} is that of all {world} processes and must be divisible by {parts}, "
            f"with 2 images or more in each part"
        )
    return Plan(
        num_images=len(labels_N),
        batch_size=config.data.batch_size,
        drop_last=config.data.drop_last or world > 1,
        rank=rank,
        world=world,
        smallest=2 * config.train.grad_accum_steps,
        seed=config.run.seed,
        balanced=labels_N if config.data.balance == "sampler" else None,
    )


def loss_weights(config: Config, labels_N: Tensor, device: torch.device) -> Tensor | None:
    """Loss weight of each class's images, on the device; None where all are equal."""
    return class_weights(labels_N).to(device) if config.data.balance == "loss" else None


def class_weights(labels_N: Tensor) -> Tensor:
    """Loss weight of each class's images, larger for rarer classes, 1 on average over all images: float32 (K,)."""
    counts_K = torch.bincount(labels_N).float()
    return len(labels_N) / (len(counts_K) * counts_K)


def started_event(built: Built, run_dir: RunDir) -> Started:
    """The event that describes what is being trained; also writes `env.json`."""
    loop = built.trainer
    schedule, dataset = loop.state.schedule, loop.data.dataset
    device, versions = describe_device(loop.device), software_versions()
    write_env(
        run_dir, {"versions": versions, "device": device, "host": socket.gethostname(), "platform": platform.platform()}
    )
    return Started(
        classes=list(dataset.classes),
        splits={name: len(split) for name, split in dataset.splits.items()},
        selection_split=dataset.selection_split,
        fingerprint=dataset.fingerprint,
        model=describe_model(loop.state.model, loop.config.model.stem),
        device=device,
        choices=built.choices,
        epochs=schedule.epochs,
        steps_per_epoch=schedule.steps_per_epoch,
        total_steps=schedule.total_steps,
        planned_lr=schedule.samples(),
        versions=versions,
        skipped_images=len(dataset.skipped),
    )


def checkpoint_facts(built: Built, run_name: str) -> dict[str, Any]:
    """Facts that every checkpoint holds in addition to the state."""
    loop = built.trainer
    dataset = loop.data.dataset
    return {
        "run": run_name,
        "config": loop.config.model_dump(mode="json"),
        "classes": list(dataset.classes),
        "fingerprint": dataset.fingerprint,
        "identity": dataset.identity,
        "left_out": dataset.left_out,
        "selection_split": dataset.selection_split,
        "mean": loop.data.mean,
        "std": loop.data.std,
        "preprocess": loop.data.preprocess(loop.config.data.image_size),
        "choices": built.choices,
        "surroundings": surroundings(loop.device),
        "steps_per_epoch": loop.state.schedule.steps_per_epoch,
        "versions": software_versions(),
    }


def _initial_weights(
    config: Config, runs_dir: Path, progress: Progress, checkpoint: Checkpoint | None
) -> InitialWeights | None:
    if config.model.init_from is None or checkpoint is not None:
        return None
    return find_initial_weights(config.model.init_from, runs_dir, progress)


def _prepare_data(
    config: Config,
    device: torch.device,
    progress: Progress,
    initial: InitialWeights | None,
    checkpoint: Checkpoint | None,
) -> PreparedData:
    statistics = initial.statistics if initial else None
    if checkpoint is not None:
        statistics = (checkpoint.meta["mean"], checkpoint.meta["std"])
    data = prepare_data(config, device, progress, source_statistics=statistics)
    if checkpoint is not None:
        _refuse_other_data(data, checkpoint)
    return data


def _refuse_other_data(data: PreparedData, checkpoint: Checkpoint) -> None:
    """Raises CheckpointError with the difference when the data of a resume are not those that the run began with."""
    if data.dataset.fingerprint == checkpoint.meta["fingerprint"]:
        before = checkpoint.meta.get("left_out", data.dataset.left_out)
        if before != data.dataset.left_out:
            raise CheckpointError(
                f"other files can be read than when the run began: {before} were left out then, {data.dataset.left_out} now, so "
                f"that images would change places. Put the files back as they were, or start a new run from these weights with "
                f"model.init_from"
            )
        return
    then, now = checkpoint.meta["identity"], data.dataset.identity
    changed = [key for key in sorted({*then, *now}) if then.get(key) != now.get(key)]
    lines = [f"  {key}: {then.get(key, 'none')} -> {now.get(key, 'none')}" for key in changed if key != "classes"]
    if "classes" in changed:
        before, after = set(then.get("classes", "").split("\n")), set(now.get("classes", "").split("\n"))
        gone, new = sorted(before - after), sorted(after - before)
        lines.append(f"  classes gone: {', '.join(gone) or 'none'}; new: {', '.join(new) or 'none'}")
    raise CheckpointError(
        "the data are not those that the run began with:\n" + "\n".join(lines)
        + "\nPut them back, or start a new run from these weights with model.init_from"
    )  # fmt: skip


def _build_model(config: Config, data: PreparedData, initial: InitialWeights | None, warnings: list[str]) -> nn.Module:
    model = build_model(config.model, len(data.dataset.classes), config.run.seed)
    if initial is not None:
        report = load_initial_weights(model, initial, data.dataset.classes)
        random = [name for name in report.random_backbone if stage_of(name) < frozen_stages(config.model, 0)]
        if random:
            raise ConfigError(
                f"model.freeze: {config.model.freeze} would freeze random weights: {initial.origin} has no "
                f"{', '.join(random[:3])} for stem {config.model.stem}; set model.stem as it was there, or model.freeze=none"
            )
        warnings.append(f"{initial.origin}: {report}")
    set_train_mode(model, frozen_stages(config.model, 0))
    return model


def _restore(state: TrainState, checkpoint: Checkpoint, config: Config) -> list[str]:
    """Restore a checkpoint's state; returns, for the user, what a resume with other settings changes.

    Raises:
        CheckpointError: When the checkpoint does not fit the data or the model.
    """
    meta, now = checkpoint.meta, state.schedule.steps_per_epoch
    if meta["steps_per_epoch"] != now:
        raise CheckpointError(
            f"the checkpoint has {meta['steps_per_epoch']} steps an epoch and the data now give {now}"
        )
    try:
        state.restore(checkpoint)
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint does not fit the model: {error}") from error
    if meta["config"]["eval"].get("best_by", "accuracy") != config.eval.best_by and state.improved_step >= 0:
        # Patience starts again: how long accuracy has not risen says nothing about the loss.
        state.improved_step = max(state.improved_step, state.measured_step)
    before = dataclasses.replace(state.schedule, epochs=int(meta["config"]["train"]["epochs"]))
    if state.finished or not state.step or before.epochs == config.train.epochs:
        return []
    old, new = before.at(min(state.step, before.total_steps - 1)), state.schedule.at(state.step)
    risen = f"the learning rate rises from {old:.3g} to {new:.3g} because the plan is now {config.train.epochs} epochs"
    return [f"{risen}; key l changes it"] if new > 1.01 * old else []
