"""The configuration of a run, and the settings that a resume may change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.config.loader import build_config, differences, parse_overrides
from trainer.config.schema import Config, may_change_on_resume
from trainer.config.yaml_reader import read_mapping
from trainer.errors import ConfigError, RunError
from trainer.run.folder.run_dir import RunDir, started_in


def read_run_config(run_dir: RunDir) -> Config:
    """The configuration that a run was started with; RunError when it is missing, ConfigError when it is invalid."""
    try:
        text = run_dir.config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{run_dir.config}: cannot be read: {error}") from error
    values, lines = read_mapping(text, source=str(run_dir.config))
    return build_config(with_reading(values), lines, str(run_dir.config))


def with_reading(recorded: dict[str, Any]) -> dict[str, Any]:
    """A run's recorded configuration with the version of its reading rules, which is 1 where none was recorded."""
    data = recorded.get("data")
    return recorded | {"data": {"reading": 1} | data} if isinstance(data, dict) else recorded


def with_root_found(config: Config, run_dir: RunDir) -> Config:
    """A run's configuration with a relative `data.root` resolved against the folder where the run was started.

    If that folder of images no longer exists, as after a move of run and images together, `data.root` stays relative.
    """
    folder, given = started_in(run_dir), Path(config.data.root).expanduser()
    if folder is None or given.is_absolute() or config.data.kind == "digits":
        return config
    root = folder / given
    return config if root == given.absolute() or not root.is_dir() else with_root(config, root)


def with_root(config: Config, root: Path) -> Config:
    """The same configuration with another folder of images."""
    return config.model_copy(update={"data": config.data.model_copy(update={"root": str(root)})})


def refuse_other_config(run_dir: RunDir, wanted: Config, source: str) -> None:
    """Raise ConfigError, with the difference, when a file given for a resume belongs to another run."""
    changed = differences(read_run_config(run_dir), wanted)
    shown = [
        f"  {key}: {there!r} in the run, {given!r} in the file"
        for key, (there, given) in changed.items()
        if key not in ("run.name", "data.reading") and not may_change_on_resume(key)
    ]
    if shown:
        raise ConfigError(
            f"{source}: {run_dir.path} was started with other settings:\n" + "\n".join(shown)
            + f"\nTo resume with the run's own configuration: {run_dir.resume_command()}"
        )  # fmt: skip


def changed_settings(run_dir: RunDir, recorded: dict[str, Any] | None, new: Config) -> list[str]:
    """Settings that a resume changes, as `key: old -> new`; ConfigError when the run's own was edited into another run's.

    `recorded` is the configuration in the resumed checkpoint, None before the first; `new` has the command line's changes.
    """
    if recorded is None:
        return _shown(differences(read_run_config(run_dir), new))
    changed = differences(build_config(with_reading(recorded), {}, f"checkpoint of {run_dir.path}"), new)
    refused = [line for key, line in zip(changed, _shown(changed), strict=True) if not may_change_on_resume(key)]
    if refused:
        raise ConfigError(
            f"{run_dir.config}: differs from the settings of the run's last checkpoint:\n"
            + "\n".join(f"  {line}" for line in refused)
            + f"\nRestore these, or start a new run from these weights: model.init_from={run_dir.path}"
        )
    return _shown(changed)


def _shown(changed: dict[str, tuple[Any, Any]]) -> list[str]:
    return [f"{key}: {old!r} -> {new!r}" for key, (old, new) in changed.items()]


def resumed_config(run_dir: RunDir, overrides: list[str]) -> Config:
    """A run's own configuration with the `group.key=value` changes of a resume; ConfigError when they make it another run."""
    old = with_root_found(read_run_config(run_dir), run_dir)
    refused = [key for key, _ in parse_overrides(overrides) if not may_change_on_resume(key)]
    values: dict[str, Any] = old.model_dump(mode="json")
    new = build_config(values, {}, str(run_dir.config), overrides)
    changed = differences(old, new)
    refused = [key for key in refused if key in changed]
    if refused:
        shown = "\n".join(f"  {line}" for line in _shown({key: changed[key] for key in refused}))
        raise ConfigError(
            f"{run_dir.path}: a resume cannot change\n{shown}\n"
            f"Start a new run from these weights instead: model.init_from={run_dir.path}"
        )
    return new
