"""Live edits between steps: the newest checkpoint of a stopped run has them, also when its step was already saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.running import answered, new_run, start, wait_for
from trainer.config.schema import Config
from trainer.model.checkpoint import read_checkpoint
from trainer.model.checkpoint_folder import CheckpointFolder
from trainer.run.control import commands as cmd

pytestmark = pytest.mark.usefixtures("narrow_network")


@pytest.mark.parametrize(
    ("edit", "value", "expected"),
    [
        (cmd.SetLr(lr=1e-5), lambda meta: len(meta["lr_edits"]), 1),
        (cmd.ScaleLr(factor=0.5), lambda meta: [factor for _, factor in meta["lr_edits"]], [0.5]),
        (cmd.Freeze(), lambda meta: meta["unfrozen_by_key"], -1),
        (cmd.ChangeSettings(settings={"eval.every_epochs": 7}), lambda meta: meta["config"]["eval"]["every_epochs"], 7),
    ],
    ids=["set lr", "scale lr", "freeze", "settings"],
)
def test_an_edit_at_a_saved_step_survives_a_stop(
    folder_config: Config, tmp_path: Path, edit: cmd.Command, value: Callable[[dict[str, Any]], Any], expected: Any
) -> None:
    config = folder_config.model_copy(update={"train": folder_config.train.model_copy(update={"epochs": 5000})})
    run = new_run(config, tmp_path)
    thread = start(run, hold_open=True)
    wait_for(run.run_dir, lambda view: view.step > 2)
    for command in (cmd.Pause(), cmd.SaveCheckpoint(), edit):
        thread.commands.send(command)
    assert answered(run.run_dir, edit).ok
    thread.stop()
    thread.release()
    assert thread.join(60)
    newest = read_checkpoint(CheckpointFolder(run.run_dir, keep=2).choose("latest"))
    assert value(newest.meta) == expected
