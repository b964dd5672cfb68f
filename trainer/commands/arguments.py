"""The command line shared by `r18-tui` and `python -m trainer`; `trainer.commands.train` checks its meaning."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from trainer.config.trackers import SinkName
from trainer.errors import ConfigError
from trainer.export.formats import FORMATS
from trainer.run.folder.run_dir import default_runs_dir

_OVERRIDE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*=", re.ASCII)
"""Dotted Python names before a `=`. A path may hold a `=` too, but has a slash or a dash before it."""


@dataclass(frozen=True)
class Tokens:
    """A command line split into overrides and the rest.

    Attributes:
        overrides: Every token with a `=` that is no option, wherever it was.
    """

    rest: list[str]
    overrides: list[str]


def split_overrides(argv: Sequence[str]) -> Tokens:
    """Take `group.key=value` tokens out of a command line."""
    overrides = [token for token in argv if _OVERRIDE.match(token)]
    return Tokens([token for token in argv if token not in overrides], overrides)


def refuse_overrides(tokens: Tokens, command: str) -> None:
    """Raise ConfigError when a command that trains nothing was given `group.key=value` tokens."""
    if tokens.overrides:
        raise ConfigError(f"{tokens.overrides[0]}: {command} takes no settings; only a training run does")


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a training run."""
    parser.add_argument(
        "config", nargs="?", metavar="CONFIG", help="a YAML file, or the name of a shipped configuration"
    )
    parser.add_argument("--name", help="name of the run's directory (default: run.name)")
    parser.add_argument(
        "--resume", nargs="?", const="latest", metavar="RUN", help="go on with a run: a directory, a name, or latest"
    )
    add_runs_dir(parser)


def add_runs_dir(parser: argparse.ArgumentParser) -> None:
    """Add the option that every command takes."""
    parser.add_argument(
        "--runs-dir", type=Path, default=default_runs_dir(), metavar="DIR", help="folder of runs (default: %(default)s)"
    )


def add_init_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `init`."""
    parser.add_argument(
        "folder", metavar="FOLDER", help="class folders, or train/ and test/ and/or val/ with class folders"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="what is written (default: FOLDER's name with .yaml, here)"
    )
    parser.add_argument(
        "--init-from", metavar="WHAT", help="weights to start from: imagenet (default), none, a run, or a file"
    )
    add_runs_dir(parser)


def add_predict_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `predict`."""
    parser.add_argument(
        "model", metavar="MODEL", help="an exported .onnx file, a checkpoint, or a run (a directory, a name, latest)"
    )
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        help="pictures, folders, patterns such as '*.jpg', or - for a list on standard input",
    )
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table", help="(default: %(default)s)")
    parser.add_argument(
        "--top", type=positive, default=1, metavar="N", help="name the N likeliest classes (default: 1)"
    )
    parser.add_argument("--batch-size", type=positive, default=32, metavar="N", help="pictures at a time (default: 32)")
    parser.add_argument("--device", default="auto", help="for a run or checkpoint: auto, cpu, mps, cuda or cuda:N")
    add_which(parser)
    add_runs_dir(parser)


def add_sync_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `sync`."""
    parser.add_argument("run", metavar="RUN", help="a run directory, a name, or latest")
    parser.add_argument("--to", required=True, choices=get_args(SinkName), help="the tracker")
    # For a process started by a trainer: exits after the process with this id has ended.
    parser.add_argument("--until-ends", type=positive, help=argparse.SUPPRESS)
    add_runs_dir(parser)


def add_bench_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `bench`."""
    parser.add_argument(
        "configs",
        metavar="CONFIG",
        nargs="*",
        help="YAML files, or names of shipped configurations (default: all of these)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, mps, cuda or cuda:N")


def add_eval_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `eval`."""
    what = "an exported .onnx file, a checkpoint, or a run (a directory, a name, or latest)"
    parser.add_argument("model", metavar="MODEL", help=what)
    parser.add_argument("other", metavar="MODEL", nargs="?", help="another one, to compare the two on the same images")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="class folders, or splits of them (default: what the run held out)"
    )
    parser.add_argument(
        "--split", choices=("test", "val", "train"), help="(default: test, or val where there is no test)"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="where files go (default: eval/ of the run)")
    parser.add_argument("--no-robustness", action="store_true", help="leave the measurement on worse pictures out")
    parser.add_argument("--batch-size", type=positive, default=64, metavar="N", help="images at a time (default: 64)")
    parser.add_argument("--device", default="auto", help="for a run or checkpoint: auto, cpu, mps, cuda or cuda:N")
    add_which(parser)
    add_runs_dir(parser)


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


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `export`."""
    parser.add_argument("run", metavar="RUN", help="a run directory, a name, or latest")
    add_which(parser)
    parser.add_argument("--data", type=Path, metavar="DIR", help="the image folder, when it has moved")
    parser.add_argument(
        "--format",
        action="append",
        choices=tuple(FORMATS),
        help="what is written beside model.onnx, once for each (default: as the run's configuration says)",
    )
    parser.add_argument(
        "--embed-preprocess", action="store_true", help="files that take uint8 pixels and answer probabilities"
    )
    parser.add_argument("--events", action="store_true", help=argparse.SUPPRESS)
    add_runs_dir(parser)
