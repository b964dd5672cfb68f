"""`find-lr CONFIG`: tries learning rates, and prints the curve and a suggestion."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from trainer.config.yaml_editor import write_value
from trainer.errors import EXIT_FAILED, EXIT_OK
from trainer.host.safe_text import printable
from trainer.options import add_runs_dir
from tui.drawing.lr_range_plot import LR_KEY, lr_range_plot
from tui.terminal.private_terminal import is_terminal, read_key


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `find-lr`."""
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, or the name of a shipped configuration")
    add_runs_dir(parser)


def main(arguments: argparse.Namespace) -> int:
    """Try rates, print the curve and the suggestion, and offer to write it into the configuration."""
    from trainer.config.loader import load_config
    from trainer.host.progress import progress_bar

    resolved = load_config(arguments.config, arguments.overrides)
    from trainer.commands.lr_range import find_lr

    with progress_bar() as progress:
        found, warnings = find_lr(resolved.config, arguments.runs_dir, progress)
    for warning in warnings:
        sys.stderr.write(printable(warning) + "\n")
    plot = lr_range_plot(found.lrs, found.losses, 76, 18)
    points = list(zip(found.lrs, found.losses, strict=True))
    table = "".join(f"{lr:10.2e}  {loss:.4f}\n" for lr, loss in points[::5])
    shown = f"{plot}\n  loss against the learning rate, on a logarithmic axis\n" if plot else table
    sys.stdout.write(f"{shown}\n{found.reason}\n")
    if found.suggestion is None:
        return EXIT_FAILED
    taken = f"{LR_KEY}={found.suggestion:g}"
    command_line = shlex.join([arguments.config, *arguments.overrides, taken])
    sys.stdout.write(f"train with it: r18-tui {printable(command_line)}\n")
    if not resolved.shipped and is_terminal():
        _offer_to_write(Path(arguments.config), arguments.overrides, found.suggestion)
    return EXIT_OK


def _offer_to_write(file: Path, overrides: Sequence[str], suggestion: float) -> None:
    """Offer to write the suggestion into the configuration, with one key."""
    sys.stdout.write(
        f"\n  w  write {LR_KEY}: {suggestion:g} into {printable(str(file))}\n  any other key leaves the file as it is\n"
    )
    sys.stdout.flush()
    if read_key() == "w":
        write_value(file, LR_KEY, suggestion)
        others = [override for override in overrides if not override.startswith(f"{LR_KEY}=")]
        sys.stdout.write(f"saved; train with: r18-tui {printable(shlex.join([str(file), *others]))}\n")
