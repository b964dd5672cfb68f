"""The headless command: `python -m trainer CONFIG`, and the commands that train nothing."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence

from trainer.commands import arguments
from trainer.commands.arguments import Tokens, add_train_arguments, refuse_overrides, split_overrides
from trainer.errors import EXIT_FAILED, EXIT_OK, EXIT_SIGINT, EXIT_SIGPIPE, EXIT_USAGE, R18Error
from trainer.host.malloc import keep_freed_memory
from trainer.host.openmp import let_waiting_threads_sleep
from trainer.host.safe_text import printable
from trainer.host.standard_streams import drop_output, open_standard_streams
from trainer.host.stop_signals import ignore_warnings
from trainer.host.torchrun import rank, under_torchrun
from trainer.session.request import Request

COMMANDS = {
    "init": (
        "trainer.commands.init",
        "Look at a folder of images and write a configuration that explains its choices.",
    ),
    "export": ("trainer.commands.export", "Export a run for other programs, checked against the model."),
    "eval": ("trainer.commands.eval", "Measure a model on images with known classes, or compare two models."),
    "bench": (
        "trainer.commands.bench",
        "Measure in two minutes how fast this machine trains each shipped configuration.",
    ),
    "sync": ("trainer.commands.sync", "Pass a run on to TensorBoard, Weights & Biases, MLflow or trackio."),
    "predict": ("trainer.commands.predict", "Say what a trained model sees in pictures."),
}
"""Module and description of the commands that train nothing; `trainer.commands.arguments` defines their options."""


def main(argv: Sequence[str]) -> int:
    """Run a command.

    Args:
        argv: Arguments without the program's name.

    Returns:
        The exit code.
    """
    open_standard_streams()
    ignore_warnings()
    return exit_code_after(lambda: _dispatch(argv))


def exit_code_after(command: Callable[[], int]) -> int:
    """Run a command and return its exit code; an error that ends it is explained on standard error."""
    try:
        code = _explained(command)
    except BrokenPipeError:
        code = EXIT_SIGPIPE  # the reader has left, as `head` does
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
    if under_torchrun():
        return _as_one_of_several(tokens)
    from trainer.commands.train import train_headless

    return train_headless(_request(_arguments(tokens), tokens))


def _arguments(tokens: Tokens) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m trainer", description="Train ResNet-18 without a terminal.")
    add_train_arguments(parser)
    given = parser.parse_args(tokens.rest)
    if given.config is None and given.resume is None:
        parser.error("CONFIG is missing; for example: python -m trainer digits")
    return given


def _request(given: argparse.Namespace, tokens: Tokens) -> Request:
    from trainer.commands.train import check_request  # not needed for other commands

    return check_request(given, tokens.overrides)


def _as_one_of_several(tokens: Tokens) -> int:
    """Lead the processes that torchrun has started, or follow. Restarted processes resume their run."""
    given = _arguments(tokens)
    keep_freed_memory()
    let_waiting_threads_sleep()
    from trainer.commands.train import train_headless
    from trainer.training.distributed import LauncherStore  # imports PyTorch, which no other command needs so early

    store = LauncherStore()
    if store.over:
        return EXIT_OK
    if rank():
        from trainer.session.peer_process import follow

        return follow()
    if store.run is not None:
        given.resume, given.config, given.name = store.run, None, None
    try:
        code = train_headless(_request(given, tokens), opened=store.remember_run)
    except R18Error as error:
        code = complain(error)
    if code not in (EXIT_OK, EXIT_FAILED):
        store.note_over()  # a stop, a wrong configuration or a full disk: a restart would not help
    return code


def run_command(name: str, rest: Sequence[str], *, program: str) -> int:
    """Run a command that trains nothing; its module, with PyTorch or other dependencies, is imported only here.

    Args:
        name: Key in `COMMANDS`.
        rest: Rest of the command line, after the name.
        program: Name of this program in usage texts.
    """
    if name in ("export", "sync"):  # the others take file names, which may contain a `=`
        refuse_overrides(split_overrides(rest), name)
    module, description = COMMANDS[name]
    parser = argparse.ArgumentParser(prog=f"{program} {name}", description=description)
    getattr(arguments, f"add_{name}_arguments")(parser)
    given = parser.parse_args(rest)  # before the import: help texts wait for nothing
    return int(importlib.import_module(module).main(given))


def complain(error: R18Error) -> int:
    """Explain an error on standard error."""
    sys.stderr.write(printable(str(error), keep="\n") + "\n")
    return error.exit_code or EXIT_USAGE
