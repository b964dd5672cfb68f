"""Builds a trainer from a configuration: device, data, model, optimizer, numerics, and the state of a checkpoint."""

from __future__ import annotations

import dataclasses
import platform
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainer.config.freezing import frozen_stages, stage_of
from trainer.config.lr_schedule import schedule_of
from trainer.config.schema import Config
from trainer.config.setting_checks import setting_warnings
from trainer.data.augment.augment import Augment
from trainer.data.prepare import PreparedData, prepare_data, worker_count
from trainer.errors import ConfigError
from trainer.host.progress import Progress
from trainer.model.checkpoint import Checkpoint
from trainer.model.checkpoint_records import RunRecord
from trainer.model.determinism import restore_surroundings, set_deterministic, surroundings
from trainer.model.device import choose_device, describe_device
from trainer.model.ema import ModelEma
from trainer.model.initial_weights import InitialWeights, find_initial_weights
from trainer.model.norm.fused import why_not_fused
from trainer.model.numerics import Numerics
from trainer.model.resnet import build_model, describe_model, set_train_mode
from trainer.model.versions import software_versions
from trainer.model.weight_loading import load_initial_weights
from trainer.run.folder.run_dir import RunDir, write_env
from trainer.run.log.run_events import Started, Warned
from trainer.training.autotune import autotune_numerics, recorded_numerics
from trainer.training.batch_source import BatchSource, feature_batches
from trainer.training.callbacks import LoopCallbacks
from trainer.training.distributed import Peers
from trainer.training.interim_evaluation import InterimEvaluator
from trainer.training.loop import Trainer
from trainer.training.metrics import StepMetrics, Stopwatch
from trainer.training.remembered_numerics import RememberedNumerics
from trainer.training.resume import refuse_other_data, restore
from trainer.training.state import TrainState
from trainer.training.step import TrainStep, build_step


@dataclass(frozen=True, kw_only=True)
class BuiltTrainer:
    """A trainer that is ready to run, with warnings for the user."""

    trainer: Trainer
    choices: dict[str, Any]  # timed choices, for the log, the checkpoint and a resume
    warnings: list[str]


def build_trainer(
    config: Config, runs_dir: Path, hooks: LoopCallbacks, progress: Progress, checkpoint: Checkpoint | None,
    *, peers: Peers | None = None,
) -> BuiltTrainer:  # fmt: skip
    """Build everything that the loop needs; R18Error when device, data or weights do not match the configuration.

    `model.init_from` looks up runs in `runs_dir`; `progress` may raise to cancel; `checkpoint` is that of a resume, or None;
    `peers`, None for a single process, wait for the leader's messages.
    """
    warnings: list[str] = []
    set_deterministic(config.run.deterministic)
    device = choose_device(config.run.device)
    if checkpoint is not None and config.run.deterministic:
        warnings += restore_surroundings(checkpoint.run.surroundings, device)
    data, initial = _data_and_weights(config, runs_dir, device, progress, checkpoint)
    warnings += _data_warnings(config, data)
    progress("building the model", None)
    model = _build_model(config, data, initial, warnings).to(device)
    source = BatchSource(
        config, data.dataset.splits["train"], device, lambda message: hooks.publish(Warned(message=message)), peers
    )
    augment = Augment(config=config.data, normalize=data.normalize, seed=config.run.seed)
    numerics, choices = _choose_numerics(config, model, augment, source, progress, data.cache, checkpoint)
    warnings += _warnings_about_norms(config, numerics, device)
    if peers is not None:
        peers.broadcast_json(
            {
                "fingerprint": data.dataset.fingerprint, "mean": data.mean, "std": data.std,
                "numerics": dataclasses.asdict(numerics), "micro_batches": choices.get("micro_batches"),
                "threads": torch.get_num_threads(),
            }
        )  # fmt: skip
    train_step = build_step(
        config, model, augment, numerics,
        class_weights_K=source.weights_K, micro_batches=choices.get("micro_batches"), peers=peers,
    )  # fmt: skip
    decay = config.train.ema_decay
    ema = None if decay is None else ModelEma(train_step.model, decay)
    schedule = schedule_of(config, steps_per_epoch=source.plan.steps_per_epoch)
    state = TrainState(train_step.model, train_step.optimizer, schedule, ema, train_step.loss_scale)
    if checkpoint is not None:
        warnings += restore(state, checkpoint, config)
    choices["cuda_graph"] = train_step.not_captured or "yes"
    loop = _loop(config, data, source, train_step, state, hooks)
    # With the stages that are frozen now: a save before the next step and a repeated evaluation need them.
    loop.train_step.prepare(loop.frozen_now)
    loop.train_step.share_state()
    return BuiltTrainer(trainer=loop, choices=choices, warnings=warnings)


def run_record(built: BuiltTrainer, run_name: str) -> RunRecord:
    """Record of the run for its checkpoints."""
    loop = built.trainer
    dataset = loop.data.dataset
    return RunRecord(
        run=run_name,
        config=loop.config.model_dump(mode="json"),
        classes=list(dataset.classes),
        fingerprint=dataset.fingerprint,
        identity=dataset.identity,
        left_out=dataset.left_out,
        selection_split=dataset.selection_split,
        mean=loop.data.mean,
        std=loop.data.std,
        preprocess=loop.data.preprocess(loop.config.data.image_size),
        choices=built.choices,
        surroundings=surroundings(loop.device),
        steps_per_epoch=loop.state.schedule.steps_per_epoch,
        versions=software_versions(),
    )


def started_event(built: BuiltTrainer, run_dir: RunDir) -> Started:
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


def _data_and_weights(
    config: Config, runs_dir: Path, device: torch.device, progress: Progress, checkpoint: Checkpoint | None
) -> tuple[PreparedData, InitialWeights | None]:
    """The data, and the weights of `model.init_from`, with whose statistics images are normalised."""
    initial, statistics = None, None
    if checkpoint is not None:
        statistics = (checkpoint.run.mean, checkpoint.run.std)
    elif config.model.init_from is not None:
        initial = find_initial_weights(config.model.init_from, runs_dir, progress)
        statistics = initial.statistics
    data = prepare_data(config, device, progress, source_statistics=statistics)
    if checkpoint is not None:
        refuse_other_data(data, checkpoint)
    return data, initial


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


def _data_warnings(config: Config, data: PreparedData) -> list[str]:
    dataset = data.dataset
    return [
        *(f"cannot read {path}: {reason}" for path, reason in dataset.skipped),
        *dataset.remarks,
        *setting_warnings(config, len(dataset.splits["train"])),
        *(f"{config.data.root}: {note}" for note in dataset.notes),
    ]


def _choose_numerics(
    config: Config, model: nn.Module, augment: Augment, source: BatchSource, progress: Progress, cache: str,
    checkpoint: Checkpoint | None,
) -> tuple[Numerics, dict[str, Any]]:  # fmt: skip
    """Numerics of the run, and all its choices: those of the checkpoint in a resume, else remembered or timed."""
    if checkpoint is not None:
        choices = checkpoint.run.choices
        numerics = recorded_numerics(config, choices, source.device)
        return numerics, choices | dataclasses.asdict(numerics)
    remembered = RememberedNumerics(config, source.device)
    found = remembered.find()
    if found is not None and found[0].batch_norm == "fused" and why_not_fused(source.device):
        found = None  # by another installation
    numerics, timings = found or autotune_numerics(
        config, model, augment, source.trial_batch, progress, device=source.device
    )
    if found is None and timings:
        remembered.store(numerics, timings)
    choices = {"timings_ms": timings, "remembered": found is not None, "cache": cache}
    return numerics, dataclasses.asdict(numerics) | choices


def _warnings_about_norms(config: Config, numerics: Numerics, device: torch.device) -> list[str]:
    could_be = device.type == "cuda" and numerics.channels_last and config.run.compile == "none"
    if not could_be or config.run.batch_norm != "auto" or numerics.batch_norm == "fused":
        return []
    reason = why_not_fused(device)
    return [f"batch norm is not fused, so training is slower: {reason}"] if reason else []


def _loop(
    config: Config, data: PreparedData, source: BatchSource, train_step: TrainStep, state: TrainState, hooks: LoopCallbacks
) -> Trainer:  # fmt: skip
    stopwatch = Stopwatch()
    evaluator = InterimEvaluator(
        config=config, data=data, state=state, train_step=train_step, stopwatch=stopwatch, hooks=hooks,
        device=source.device, lost=source.lost,
    )  # fmt: skip
    return Trainer(
        config=config, data=data, batches=source.batches(worker_count(config.data)),
        feature_batches=feature_batches(source.plan, source.split.labels_N, source.device),
        state=state, train_step=train_step, evaluator=evaluator, metrics=StepMetrics(source.device), stopwatch=stopwatch,
        hooks=hooks, device=source.device, last_save=time.monotonic(),
    )  # fmt: skip
