"""The current settings of a run: the one source for all commands that use the run after its training.

A resume may change some settings (`RESUME_OVERRIDES`), and these are in the run's `config.yaml`. All others are those that a
checkpoint was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.config.loader import build_config, differences, put_setting
from trainer.config.schema import Config, may_change_on_resume
from trainer.model.checkpoint import read_metadata
from trainer.model.checkpoint_folder import CheckpointFolder
from trainer.run.folder.run_config import read_run_config, with_reading, with_root_found
from trainer.run.folder.run_dir import RunDir


def settings_now(run_dir: RunDir | None, recorded: Mapping[str, Any] | None = None) -> Config:
    """The current settings of a run, or of a checkpoint without one (`run_dir` None).

    `recorded` is the configuration in the checkpoint to use; None for that of the run's newest checkpoint. RunError
    when there is neither a checkpoint nor a configuration, ConfigError when one is no longer valid.
    """
    if recorded is None and run_dir is not None:
        newest = CheckpointFolder(run_dir, keep=2).pointer("latest")
        recorded = read_metadata(newest).get("config") if newest else None
    config = None if recorded is None else build_config(with_reading(dict(recorded)), {}, "checkpoint")
    if run_dir is None or (config is not None and not run_dir.config.is_file()):
        assert config is not None
        return config
    now = read_run_config(run_dir)
    if config is not None:
        values = config.model_dump(mode="json")
        for key, (_, new) in differences(config, now).items():
            if may_change_on_resume(key):
                put_setting(values, key, new)
        now = build_config(values, {}, str(run_dir.config))
    return with_root_found(now, run_dir)
