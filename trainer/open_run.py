"""Takes a run for writing: makes or finds its directory, locks it, settles its configuration, opens its log. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config import Config, may_change_on_resume
from trainer.config_loader import build_config, differences, parse_overrides, to_yaml
from trainer.errors import ConfigError, DiskError, R18Error, RunError
from trainer.run.atomic import write_atomically
from trainer.run.event_log import EventLog, read_records
from trainer.run.results_csv import ResultsCsv
from trainer.run.store import RunDir, RunLock, create_run
from trainer.yaml_reader import read_mapping


@dataclass(frozen=True, kw_only=True)
class OpenRun:
    """A run that this process may write to.

    Attributes:
        runs_dir: Folder in which other runs are looked up by name.
        resume: Whether training goes on from the run's newest checkpoint.
    """

    run_dir: RunDir
    runs_dir: Path
    config: Config
    lock: RunLock
    log: EventLog
    resume: bool

    def keep_config(self) -> None:
        """Write the configuration into the run, as a resume changed it.

        Raises:
            DiskError: When it cannot be written.
        """
        try:
            write_atomically(self.run_dir.config, to_yaml(self.config).encode())
        except OSError as error:
            raise DiskError(
                f"{self.run_dir.config}: cannot be written: {error}; make room, then resume again"
            ) from error

    def close(self) -> None:
        """Write the log's rest and let others write."""
        self.log.close()
        self.lock.release()


def open_new_run(config: Config, runs_dir: Path) -> OpenRun:
    """Make a run directory and become its writer.

    Args:
        config: Of the run.
        runs_dir: Where runs are kept.

    Raises:
        RunError: When it cannot be made.
    """
    run_dir = create_run(runs_dir, config.run.name)
    lock = RunLock.take(run_dir)
    try:
        # Before the log, which makes a directory a run.
        write_atomically(run_dir.config, to_yaml(config).encode())
        return _open(run_dir, runs_dir, config, lock, resume=False)
    except OSError as error:
        lock.release()
        raise RunError(f"{run_dir.path}: cannot be written: {error}") from error


def open_for_resume(run_dir: RunDir, runs_dir: Path, overrides: list[str]) -> OpenRun:
    """Become the writer of an existing run, with the run's own configuration.

    Args:
        run_dir: The run.
        runs_dir: Where runs are kept.
        overrides: `group.key=value` tokens; only those that a resume may change.

    Raises:
        RunError: When the run is live or cannot be written.
        ConfigError: When an override would make it another run; the message shows the difference.
    """
    lock = RunLock.take(run_dir)
    try:
        # Kept by `keep_config` once the data and the device were found to be there.
        config = _resumed_config(run_dir, overrides)
        return _open(run_dir, runs_dir, config, lock, resume=True)
    except OSError as error:
        lock.release()
        raise RunError(f"{run_dir.path}: cannot be written: {error}") from error
    except R18Error:
        lock.release()
        raise


def read_run_config(run_dir: RunDir) -> Config:
    """The configuration that a run was started with.

    Raises:
        RunError: When it is missing.
        ConfigError: When it is not valid any more.
    """
    try:
        text = run_dir.config.read_text(encoding="utf-8")
    except OSError as error:
        raise RunError(f"{run_dir.config}: cannot be read: {error.strerror}") from error
    values, lines = read_mapping(text, source=str(run_dir.config))
    return build_config(values, lines, str(run_dir.config))


def refuse_other_config(run_dir: RunDir, wanted: Config, source: str) -> None:
    """Raises ConfigError, with the difference, when a file that was given for a resume is of another run."""
    changed = differences(read_run_config(run_dir), wanted)
    shown = [
        f"  {key}: {there!r} in the run, {given!r} in the file"
        for key, (there, given) in changed.items()
        if key != "run.name" and not may_change_on_resume(key)
    ]
    if shown:
        raise ConfigError(
            f"{source}: {run_dir.path} was not started with it:\n" + "\n".join(shown)
            + f"\nA resume keeps the run's own configuration: {run_dir.resume_command()}"
        )  # fmt: skip


def _open(run_dir: RunDir, runs_dir: Path, config: Config, lock: RunLock, *, resume: bool) -> OpenRun:
    results = ResultsCsv(run_dir.results)
    if run_dir.events.exists():
        results.replay(read_records(run_dir.events))
    log = EventLog(run_dir.events, observers=(results,))
    return OpenRun(run_dir=run_dir, runs_dir=runs_dir, config=config, lock=lock, log=log, resume=resume)


def _resumed_config(run_dir: RunDir, overrides: list[str]) -> Config:
    old = read_run_config(run_dir)
    refused = [key for key, _ in parse_overrides(overrides) if not may_change_on_resume(key)]
    values: dict[str, Any] = old.model_dump(mode="json")
    new = build_config(values, {}, str(run_dir.config), overrides)
    changed = differences(old, new)
    refused = [key for key in refused if key in changed]
    if refused:
        shown = "\n".join(f"  {key}: {changed[key][0]!r} -> {changed[key][1]!r}" for key in refused)
        raise ConfigError(
            f"{run_dir.path}: a resume cannot change\n{shown}\n"
            f"Start a new run from these weights instead: model.init_from={run_dir.path}"
        )
    return new
