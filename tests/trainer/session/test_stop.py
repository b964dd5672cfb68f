"""A request to stop, as by a scheduler, in every phase of a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import ConfigMaker, needs_exporter
from tests.support.running import new_run, resumed_run, start, train, view_of
from trainer.config.schema import Config
from trainer.model.checkpoint import read_checkpoint
from trainer.model.checkpoint_folder import CheckpointFolder
from trainer.run.control import commands as cmd
from trainer.run.log.event import Event
from trainer.run.log.result_events import ExportProgress, Steps
from trainer.run.log.run_events import StateChanged
from trainer.run.view.run_view import RunView
from trainer.session.training_thread import TrainingThread
from trainer.training.interim_evaluation import evaluation_batch

pytestmark = pytest.mark.usefixtures("narrow_network")

AT_MOST_S = 5.0


def endless(config: Config) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update={"epochs": 5000})})


def entered(state: str) -> Callable[[Event, RunView], bool]:
    return lambda event, _: isinstance(event, StateChanged) and event.state == state


PHASES: dict[str, tuple[cmd.Command | None, Callable[[Event, RunView], bool]]] = {
    "before the first step": (None, entered("training")),
    "in training": (None, lambda event, view: isinstance(event, Steps) and view.step > 1),
    "in an evaluation": (None, entered("evaluating")),
    "in a requested evaluation": (cmd.Evaluate(), entered("evaluating")),
    "while paused": (cmd.Pause(), entered("paused")),
    "in an export": (cmd.Export(), lambda event, _: isinstance(event, ExportProgress)),
}
"""A command sent after the first step, and the event at which the stop comes."""


@pytest.mark.parametrize(
    "phase", [pytest.param(name, marks=[needs_exporter] if "export" in name else []) for name in PHASES]
)
def test_a_stop_saves_the_last_step_within_seconds_for_a_resume(
    folder_config: Config, tmp_path: Path, phase: str
) -> None:
    command, begun = PHASES[phase]
    run = new_run(endless(folder_config), tmp_path)
    thread, publish, view, stopped_at = TrainingThread(run, hold_open=True), run.log.publish, RunView(), [0.0]

    def stop_at_the_phase(event: Event) -> object:
        result = publish(event)
        if isinstance(event, Steps):
            first = view.step == 0
            view.step = event.first_step + len(event.loss) - 1
            if first and command is not None:
                thread.commands.send(command)
        if not stopped_at[0] and begun(event, view):
            stopped_at[0] = time.monotonic()
            thread.stop("SIGTERM", 143)
        return result

    run.log.publish = stop_at_the_phase  # type: ignore[method-assign,assignment]
    thread.start()
    assert thread.join(60)
    assert stopped_at[0], "the phase was never reached"
    assert time.monotonic() - stopped_at[0] < AT_MOST_S
    assert thread.exit_code == 143
    ended = view_of(run.run_dir)
    assert ended.finish is not None
    assert (ended.finish.reason, ended.finish.step) == ("SIGTERM", ended.step)
    assert ended.exporting is None
    saved = read_checkpoint(CheckpointFolder(run.run_dir, keep=2).choose("latest"))
    assert saved.step == ended.step
    resumed = start(resumed_run(run.run_dir, tmp_path, f"train.epochs={ended.step // 4 + 1}"))
    assert resumed.join(60)
    assert resumed.exit_code == 0


@pytest.mark.parametrize(
    ("device", "overrides", "images"),
    [
        ("cpu", ["data.image_size=8", "model.stem=cifar-maxpool"], 1000),
        ("cpu", ["data.image_size=32", "model.stem=cifar"], 90),
        ("cpu", ["data.image_size=224", "model.stem=imagenet"], 27),
        ("cpu", ["data.image_size=512", "model.stem=cifar"], 1),
        ("cuda", ["data.image_size=224", "model.stem=imagenet"], 1000),
    ],
)
def test_an_evaluation_checks_for_a_stop_about_every_second(
    make_config: ConfigMaker, device: str, overrides: list[str], images: int
) -> None:
    config = make_config(*overrides, "eval.batch_size=1000")
    assert evaluation_batch(config, torch.device(device)) == images


def test_a_run_stopped_during_preparation_can_be_resumed(folder_config: Config, tmp_path: Path) -> None:
    run = new_run(folder_config, tmp_path)
    thread = TrainingThread(run, hold_open=True)
    thread.stop("SIGTERM", 143)
    thread.start()
    assert thread.join(60)
    assert thread.exit_code == 143
    assert train(folder_config, tmp_path, resume=run.run_dir).exit_code == 0
    assert view_of(run.run_dir).step == 8
