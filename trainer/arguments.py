"""The command line that `r18-tui` and `python -m trainer` share. Torch-free."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from trainer.config import default_runs_dir
from trainer.config_loader import load_config
from trainer.errors import ConfigError
from trainer.host_memory import keep_freed_memory
from trainer.open_run import OpenRun, open_for_resume, open_new_run, refuse_other_config
from trainer.run.store import find_run

_OVERRIDE = re.compile(r"[A-Za-z_]+(\.[A-Za-z_]+)*=")
"""A path may hold a `=` too, but has a slash or a dash before it."""


@dataclass(frozen=True)
class Tokens:
    """A command line, with the overrides taken out.

    Attributes:
        overrides: Every token with a `=` that is no option, wherever it stood.
    """

    rest: list[str]
    overrides: list[str]


def split_overrides(argv: Sequence[str]) -> Tokens:
    """Take `group.key=value` tokens out of a command line."""
    overrides = [token for token in argv if _OVERRIDE.match(token)]
    return Tokens([token for token in argv if token not in overrides], overrides)


def refuse_overrides(tokens: Tokens, command: str) -> None:
    """Raises ConfigError when a command that trains nothing was given `group.key=value` tokens."""
    if tokens.overrides:
        raise ConfigError(f"{tokens.overrides[0]}: {command} takes no settings; only a training run does")


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of a training run."""
    parser.add_argument(
        "config", nargs="?", metavar="CONFIG", help="a YAML file, or the name of a shipped configuration"
    )
    parser.add_argument("--name", help="name of the run's directory (default: run.name)")
    parser.add_argument(
        "--resume", nargs="?", const="latest", metavar="RUN", help="go on with a run: a directory, a name, or latest"
    )
    add_runs_dir(parser)


def add_runs_dir(parser: argparse.ArgumentParser) -> None:
    """The option that every command takes."""
    parser.add_argument(
        "--runs-dir", type=Path, default=default_runs_dir(), metavar="DIR", help="folder of runs (default: %(default)s)"
    )


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of an export."""
    parser.add_argument("run", metavar="RUN", help="a run directory, a name, or latest")
    parser.add_argument(
        "--which",
        default="default",
        metavar="best|latest|STEP",
        help="checkpoint (default: best if chosen on val, else latest)",
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="the image folder, when it has moved")
    parser.add_argument("--events", action="store_true", help=argparse.SUPPRESS)
    add_runs_dir(parser)


@dataclass(frozen=True)
class Request:
    """A training command that was found right; nothing has been written yet.

    Attributes:
        take_run: Makes or takes the run.
        remark: For the user (empty when there is none).
    """

    take_run: Callable[[], OpenRun]
    remark: str = ""

    def open(self) -> OpenRun:
        """Make this process the one that trains the run.

        Raises:
            R18Error: When the run cannot be made or taken.
        """
        keep_freed_memory()  # before the log's thread, the first of this process
        return self.take_run()


def check_request(arguments: argparse.Namespace, overrides: list[str]) -> Request:
    """Find out what a command line asks for.

    Raises:
        R18Error: When the configuration is wrong, or the run to resume is not there.
    """
    runs_dir = arguments.runs_dir
    if arguments.resume is not None:
        if arguments.name:
            raise ConfigError("--name: a resumed run keeps its name; leave --name or --resume out")
        run_dir = find_run(arguments.resume, runs_dir)
        if arguments.config is not None:
            refuse_other_config(run_dir, load_config(arguments.config).config, arguments.config)
        return Request(partial(open_for_resume, run_dir, runs_dir, overrides))
    # The name is checked as the configuration's would be.
    named = [*overrides, f"run.name={arguments.name}"] if arguments.name else overrides
    resolved = load_config(arguments.config, named)
    remark = f"using the shipped {resolved.source}" if resolved.shipped else ""
    return Request(partial(open_new_run, resolved.config, runs_dir), remark)
