"""Options that several commands share, and the settings `group.key=value` of a command line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import ConfigError
from trainer.run.folder.run_dir import default_runs_dir

_OVERRIDE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*=", re.ASCII)  # a path with a `=` has a slash or a dash before it


@dataclass(frozen=True)
class Tokens:
    """A command line split into overrides, wherever they were, and the rest."""

    rest: list[str]
    overrides: list[str]


def split_overrides(argv: Sequence[str]) -> Tokens:
    """Take `group.key=value` tokens out of a command line."""
    overrides = [token for token in argv if _OVERRIDE.match(token)]
    return Tokens([token for token in argv if token not in overrides], overrides)


def refuse_overrides(tokens: Tokens, command: str) -> None:
    """Raise ConfigError when a command that takes no settings was given `group.key=value` tokens."""
    if tokens.overrides:
        raise ConfigError(f"{tokens.overrides[0]}: {command} takes no settings")


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a training run."""
    parser.add_argument(
        "config", nargs="?", metavar="CONFIG", help="a YAML file, or the name of a shipped configuration"
    )
    parser.add_argument("--name", help="name of the run's directory (default: run.name)")
    parser.add_argument(
        "--resume", nargs="?", const="latest", metavar="RUN", help="resume a run: a directory, a name, or latest"
    )
    add_runs_dir(parser)


def add_runs_dir(parser: argparse.ArgumentParser) -> None:
    """Add the option that every command takes."""
    parser.add_argument(
        "--runs-dir", type=Path, default=default_runs_dir(), metavar="DIR", help="folder of runs (default: %(default)s)"
    )


def add_which(parser: argparse.ArgumentParser) -> None:
    """Add the option of every command that takes a run's weights."""
    parser.add_argument(
        "--which",
        default="default",
        metavar="best|latest|STEP",
        help="checkpoint (default: best if chosen on val, else latest)",
    )


def positive(text: str) -> int:
    """Convert to a whole number above 0, or raise an error that argparse shows."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found {text}")
    return int(text)
