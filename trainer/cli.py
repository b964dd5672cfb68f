"""The headless command: `python -m trainer CONFIG` and `python -m trainer export RUN`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from trainer.arguments import add_export_arguments, add_train_arguments, refuse_overrides, split_overrides
from trainer.errors import EXIT_SIGINT, EXIT_USAGE, R18Error
from trainer.headless import install_stop_handlers, run_headless
from trainer.launch import TrainingThread
from trainer.request import Request
from trainer.run.text import literal


def main(argv: Sequence[str]) -> int:
    """Run a command.

    Args:
        argv: Without the program's name.

    Returns:
        The exit code.
    """
    tokens = split_overrides(argv)
    try:
        if tokens.rest[:1] == ["export"]:
            refuse_overrides(tokens, "export")
            parser = argparse.ArgumentParser(prog="python -m trainer export", description="Export a run to ONNX.")
            add_export_arguments(parser)
            return run_export(parser.parse_args(tokens.rest[1:]))
        parser = argparse.ArgumentParser(prog="python -m trainer", description="Train ResNet-18 without a terminal.")
        add_train_arguments(parser)
        arguments = parser.parse_args(tokens.rest)
        if arguments.config is None and arguments.resume is None:
            parser.error("CONFIG is missing; for example: python -m trainer digits")
        from trainer.check_request import check_request  # not for an export

        return train_headless(check_request(arguments, tokens.overrides))
    except R18Error as error:
        return complain(error)
    except KeyboardInterrupt:
        return EXIT_SIGINT


def train_headless(request: Request) -> int:
    """Train with plain lines on standard output."""
    run = request.open()
    if request.remark:
        sys.stdout.write(request.remark + "\n")
    thread = TrainingThread(run, hold_open=False)
    tee = run.log.tee()
    install_stop_handlers(thread.stop)
    thread.start()
    return run_headless(thread, tee)


def run_export(arguments: argparse.Namespace) -> int:
    """Export a run; PyTorch is imported here and not before."""
    return int(importlib.import_module("trainer.export_onnx").main(arguments))


def complain(error: R18Error) -> int:
    """Explain an error on standard error."""
    sys.stderr.write(literal(str(error), keep="\n") + "\n")
    return error.exit_code or EXIT_USAGE
