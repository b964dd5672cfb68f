"""The headless command: `python -m trainer CONFIG` and `python -m trainer export RUN`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence

from trainer.arguments import add_export_arguments, add_train_arguments, refuse_overrides, split_overrides
from trainer.errors import EXIT_FAILED, EXIT_SIGINT, EXIT_SIGPIPE, EXIT_USAGE, R18Error
from trainer.headless import run_headless
from trainer.launch import TrainingThread
from trainer.request import Request
from trainer.run.live_source import LiveSource
from trainer.run.text import literal
from trainer.standard_streams import drop_output, open_standard_streams
from trainer.stop_signals import install_stop_handlers


def main(argv: Sequence[str]) -> int:
    """Run a command.

    Args:
        argv: Without the program's name.

    Returns:
        The exit code.
    """
    open_standard_streams()
    return exit_code_after(lambda: _dispatch(argv))


def exit_code_after(command: Callable[[], int]) -> int:
    """Run a command to its exit code; what ends it early is explained on standard error."""
    try:
        code = _explained(command)
    except BrokenPipeError:
        code = EXIT_SIGPIPE  # whoever read has left, as `head` does
    try:
        sys.stdout.flush()
    except OSError as error:
        drop_output()
        code = code or (EXIT_SIGPIPE if isinstance(error, BrokenPipeError) else EXIT_FAILED)
    return code


def _explained(command: Callable[[], int]) -> int:
    try:
        return command()
    except R18Error as error:
        return complain(error)
    except KeyboardInterrupt:
        return EXIT_SIGINT


def _dispatch(argv: Sequence[str]) -> int:
    tokens = split_overrides(argv)
    if tokens.rest[:1] == ["export"]:
        refuse_overrides(tokens, "export")
        parser = argparse.ArgumentParser(prog="python -m trainer export", description="Export a run to ONNX.")
        add_export_arguments(parser)
        return run_command("trainer.export.command", parser.parse_args(tokens.rest[1:]))
    parser = argparse.ArgumentParser(prog="python -m trainer", description="Train ResNet-18 without a terminal.")
    add_train_arguments(parser)
    arguments = parser.parse_args(tokens.rest)
    if arguments.config is None and arguments.resume is None:
        parser.error("CONFIG is missing; for example: python -m trainer digits")
    from trainer.check_request import check_request  # not for an export

    return train_headless(check_request(arguments, tokens.overrides))


def train_headless(request: Request) -> int:
    """Train with plain lines on standard output."""
    run = request.open()
    thread = TrainingThread(run, hold_open=False)
    source = LiveSource(run.run_dir, run.log, history=False)
    install_stop_handlers(thread.stop)
    thread.start()
    return run_headless(thread, source, remark=request.remark)


def run_command(module: str, arguments: argparse.Namespace) -> int:
    """Run the `main` of a module, which is imported here, with PyTorch or what else it needs, and not before."""
    return int(importlib.import_module(module).main(arguments))


def complain(error: R18Error) -> int:
    """Explain an error on standard error."""
    sys.stderr.write(literal(str(error), keep="\n") + "\n")
    return error.exit_code or EXIT_USAGE
