"""The headless command: `python -m trainer CONFIG`, and the commands that train nothing."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence

from trainer import arguments
from trainer.arguments import add_train_arguments, refuse_overrides, split_overrides
from trainer.errors import EXIT_FAILED, EXIT_SIGINT, EXIT_SIGPIPE, EXIT_USAGE, R18Error
from trainer.headless import run_headless
from trainer.launch import TrainingThread
from trainer.ranks import LAUNCHED_BY, rank, restarts
from trainer.request import Request
from trainer.run.live_source import LiveSource
from trainer.run.text import literal
from trainer.standard_streams import drop_output, open_standard_streams
from trainer.stop_signals import install_stop_handlers

COMMANDS = {
    "init": (
        "trainer.init_config",
        "Look at a folder of images and write a configuration that explains its choices.",
    ),
    "export": ("trainer.export.command", "Export a run for other programs, checked against the model."),
    "eval": ("trainer.measure", "Measure a model on images with known classes, or compare two models."),
    "bench": ("trainer.bench", "Measure in two minutes how fast this machine trains each shipped configuration."),
    "predict": ("trainer.predict", "Say what a trained model sees in pictures."),
}
"""Module and description of the commands that train nothing; `trainer.arguments` has their options."""


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
    if argv and argv[0] in COMMANDS:
        return run_command(argv[0], argv[1:], program="python -m trainer")
    if rank():
        return int(importlib.import_module("trainer.follower").follow())
    parser = argparse.ArgumentParser(prog="python -m trainer", description="Train ResNet-18 without a terminal.")
    add_train_arguments(parser)
    given = parser.parse_args(tokens.rest)
    if given.config is None and given.resume is None:
        parser.error("CONFIG is missing; for example: python -m trainer digits")
    from trainer.check_request import check_request  # not for another command

    if restarts():
        _go_on_after_restart(given)
    return train_headless(check_request(given, tokens.overrides))


def _go_on_after_restart(given: argparse.Namespace) -> None:
    """Processes that torchrun starts anew, since one of them had died, go on with their run."""
    peers = importlib.import_module("trainer.peers")  # with PyTorch, which no other way needs so early
    if (path := peers.remembered_run()) is not None:
        given.resume, given.config, given.name = path, None, None


def train_headless(request: Request) -> int:
    """Train with plain lines on standard output."""
    run = request.open()
    if LAUNCHED_BY in os.environ:
        run.lock.note(launched_by=os.environ[LAUNCHED_BY])
    thread = TrainingThread(run, hold_open=False)
    source = LiveSource(run.run_dir, run.log, history=False)
    install_stop_handlers(thread.stop)
    thread.start()
    return run_headless(thread, source, remark=request.remark)


def run_command(name: str, rest: Sequence[str], *, program: str) -> int:
    """Run a command that trains nothing; its module is imported here, with PyTorch or what else it needs, and not before.

    Args:
        name: In `COMMANDS`.
        rest: Of the command line, behind the name.
        program: As usage texts call this program.
    """
    if name == "export":  # the others take names of files, which may hold a `=`
        refuse_overrides(split_overrides(rest), name)
    module, description = COMMANDS[name]
    parser = argparse.ArgumentParser(prog=f"{program} {name}", description=description)
    getattr(arguments, f"add_{name}_arguments")(parser)
    given = parser.parse_args(rest)  # before the import: a text of help waits for nothing
    return int(importlib.import_module(module).main(given))


def complain(error: R18Error) -> int:
    """Explain an error on standard error."""
    sys.stderr.write(literal(str(error), keep="\n") + "\n")
    return error.exit_code or EXIT_USAGE
