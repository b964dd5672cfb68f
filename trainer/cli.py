"""The headless command `python -m trainer CONFIG`, and commands that do not train."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trainer.errors import EXIT_FAILED, EXIT_OK, EXIT_SIGINT, EXIT_SIGPIPE, R18Error
from trainer.host.process_tuning import tune_process
from trainer.host.safe_text import printable
from trainer.host.standard_streams import drop_output, open_standard_streams
from trainer.host.stop_signals import ignore_warnings
from trainer.host.torchrun import rank, under_torchrun
from trainer.options import Tokens, add_train_arguments, refuse_overrides, split_overrides


@dataclass(frozen=True)
class Subcommand:
    """A command other than training."""

    module: str  # with its `add_arguments` and `main`; imported when the command is given
    help: str
    settings: bool = False  # takes `group.key=value`, passed to `main` as `overrides`
    file_names: bool = False  # takes names of files, which may contain a `=`
    usage: str = ""  # where argparse does not know all of it
    screen: bool = False  # may draw on the terminal


COMMANDS = {
    "init": Subcommand(
        "trainer.commands.init", "Inspect a folder of images and write a configuration that explains its choices.",
        file_names=True,
    ),
    "export": Subcommand("trainer.commands.export", "Export a run for other programs, checked against the model."),
    "eval": Subcommand(
        "trainer.commands.eval", "Evaluate a model on images with known classes, or compare two models.", file_names=True
    ),
    "audit": Subcommand(
        "trainer.commands.audit", "Find wrong labels, near copies and odd pictures in a folder of images.", file_names=True
    ),
    "bench": Subcommand(
        "trainer.commands.bench", "Measure in two minutes how fast this machine trains each shipped configuration.",
        file_names=True,
    ),
    "sync": Subcommand("trainer.commands.sync", "Upload a run to TensorBoard, Weights & Biases, MLflow or trackio."),
    "predict": Subcommand("trainer.commands.predict", "Classify pictures with a trained model.", file_names=True),
}  # fmt: skip
"""Commands that do not train and need no screen. `r18-tui` adds its own (`tui.cli`)."""


def main(argv: Sequence[str]) -> int:
    """Run a command and return its exit code; `argv` excludes the program's name."""
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
        return report_error(error)
    except KeyboardInterrupt:
        return EXIT_SIGINT


def _dispatch(argv: Sequence[str]) -> int:
    tokens = split_overrides(argv)
    if argv and argv[0] in COMMANDS:
        return run_command(COMMANDS[argv[0]], argv, program="python -m trainer")
    if under_torchrun():
        return _run_under_torchrun(tokens)
    from trainer.commands.train_request import check_request, train_headless

    return train_headless(check_request(_arguments(tokens), tokens.overrides))


def _arguments(tokens: Tokens) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m trainer", description="Train ResNet-18 without a terminal.")
    add_train_arguments(parser)
    given = parser.parse_args(tokens.rest)
    if given.config is None and given.resume is None:
        parser.error("CONFIG is missing; for example: python -m trainer digits")
    return given


def _run_under_torchrun(tokens: Tokens) -> int:
    """Lead or follow, as one of the processes that torchrun has started. Restarted processes resume their run."""
    given = _arguments(tokens)
    tune_process()
    from trainer.commands.train_request import check_request, train_headless
    from trainer.training.distributed import LauncherStore  # imports PyTorch, which no other command needs so early

    store = LauncherStore()
    if store.get("over"):
        return EXIT_OK
    if rank():
        from trainer.session.peer_process import follow

        return follow()
    if run := store.get("run"):
        given.resume, given.config, given.name = run, None, None
    try:
        code = train_headless(
            check_request(given, tokens.overrides), opened=lambda directory: store.set("run", str(directory))
        )
    except R18Error as error:
        code = report_error(error)
    if code not in (EXIT_OK, EXIT_FAILED):
        store.set("over", "yes")  # a stop, a wrong configuration or a full disk: a restart would not help
    return code


def run_command(command: Subcommand, argv: Sequence[str], *, program: str) -> int:
    """Run a command, whose name is `argv[0]`; `program` is the name of this program in usage texts."""
    name, *rest = argv
    tokens = Tokens(rest, []) if command.file_names else split_overrides(rest)
    if not command.settings:
        refuse_overrides(tokens, name)
    module = importlib.import_module(command.module)
    parser = argparse.ArgumentParser(prog=f"{program} {name}", description=command.help, usage=command.usage or None)
    module.add_arguments(parser)
    given = parser.parse_args(tokens.rest)
    given.overrides = tokens.overrides
    return int(module.main(given))


def report_error(error: R18Error) -> int:
    """Explain an error on standard error."""
    sys.stderr.write(printable(str(error), keep="\n") + "\n")
    return error.exit_code
