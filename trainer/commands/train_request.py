"""Checks a training command line and converts it to a request. Torch-free."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from trainer.config.loader import load_config
from trainer.config.plain_config import PlainConfig
from trainer.config.setting_checks import setting_checks
from trainer.config.trackers import refuse_missing
from trainer.errors import ConfigError
from trainer.host.safe_text import is_reserved
from trainer.host.torchrun import LAUNCHED_BY
from trainer.run.folder.run_config import refuse_other_config, resumed_config
from trainer.run.folder.run_dir import find_run
from trainer.run.log.live_source import LiveSource
from trainer.session.headless import run_headless
from trainer.session.request import Request
from trainer.session.training_thread import TrainingThread


def check_request(arguments: argparse.Namespace, overrides: list[str]) -> Request:
    """Check a training command, with `group.key=value` overrides, without writing anything; R18Error when it is wrong."""
    runs_dir = arguments.runs_dir
    if arguments.resume is not None:
        if arguments.name is not None:
            raise ConfigError("--name: a resumed run keeps its name; remove --name or --resume")
        run_dir = find_run(arguments.resume, runs_dir)
        if arguments.config is not None:
            refuse_other_config(run_dir, load_config(arguments.config).config, arguments.config)
        # The lock comes later, in the process that trains: a setting that another resume changes meanwhile is lost, and no more.
        return _check_feasible(
            Request(settings=PlainConfig.of(resumed_config(run_dir, overrides)), runs_dir=runs_dir, resumed=run_dir)
        )
    # The name is checked like that of the configuration.
    named = overrides if arguments.name is None else [*overrides, f"run.name={arguments.name}"]
    resolved = load_config(arguments.config, named)
    invalid = [check for check in setting_checks(resolved.config) if check.state == "bad"]
    if invalid:
        raise ConfigError("\n".join(f"{resolved.source}: {check.found}; {check.remedy}" for check in invalid))
    _refuse_reserved(resolved.config.run.name)
    remark = f"using the shipped {resolved.source}" if resolved.shipped else ""
    return _check_feasible(Request(settings=PlainConfig.of(resolved.config), runs_dir=runs_dir, remark=remark))


def _refuse_reserved(name: str) -> None:
    # Only for a new run: older runs may have such names.
    if is_reserved(name):
        raise ConfigError(
            f"run.name: {name} is reserved, as are latest, imagenet, none and names ending in .onnx: commands that take a run "
            f"give them another meaning. Choose another with --name NAME"
        )


def _check_feasible(request: Request) -> Request:
    """Refuse a request that cannot be carried out, or whose text neither a pipe between processes nor a run's log can hold."""
    refuse_missing(request.settings.values["run"]["sinks"])
    try:
        request.to_json()
    except TypeError as error:
        raise ConfigError(f"a setting or a path is not valid UTF-8 ({error}); change or rename it") from error
    return request


def train_headless(request: Request, *, opened: Callable[[Path], None] | None = None) -> int:
    """Train a run and print plain lines; `opened` is called with its directory before anything else is done there."""
    run = request.open()
    if opened is not None:
        opened(run.run_dir.path.absolute())
    if LAUNCHED_BY in os.environ:
        run.lock.publish_facts(launched_by=os.environ[LAUNCHED_BY])
    thread = TrainingThread(run, hold_open=False)
    source = LiveSource(run.run_dir, run.log, history=False)
    thread.take_signals()
    thread.start()
    code = run_headless(thread, source, remark=request.remark)
    if thread.refused and LAUNCHED_BY not in os.environ:  # a launcher's output has no reader: a dashboard reads the log
        run.discard()
    return code
