"""`r18-tui`: parses the command line and runs a command. Each process imports only what it needs."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainer.host.standard_streams import open_standard_streams
from trainer.host.stop_signals import ignore_warnings
from tui.terminal.package_clash import foreign_packages
from tui.terminal.terminal_mark import restore_after_a_kill

if TYPE_CHECKING:
    from trainer.cli import Subcommand


def main(argv: Sequence[str] | None = None) -> int:
    """Run the console script; `argv` comes without the program's name, None takes `sys.argv`.

    Returns the exit code: 0 done, 2 usage or configuration, 75 resumable, 129/130/143 after a signal and a save (128 + number
    for those of `run.stop_on_signals`), else 1.
    """
    try:
        return _main(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:  # before any handler was installed
        return 130
    finally:
        if argv is None:
            from trainer.host.stop_signals import leave_interrupts_to_the_system

            leave_interrupts_to_the_system()


def _main(argv: Sequence[str]) -> int:
    open_standard_streams()
    restore_after_a_kill()
    ignore_warnings()
    # Until the first frame: a tenth of that time would go into scanning modules that stay anyway.
    gc.disable()
    if foreign := foreign_packages():
        sys.stderr.write("\n".join(foreign) + "\n")
        return 2
    from trainer.cli import exit_code_after, run_command
    from trainer.options import split_overrides

    commands = all_commands()
    if argv and argv[0] not in commands:
        tokens = split_overrides(argv)
        if tokens.rest and tokens.rest[0] in commands and not commands[tokens.rest[0]].file_names:
            argv = [*tokens.rest, *tokens.overrides]  # settings may come first
    name = argv[0] if argv else ""
    try:
        if name not in commands:
            return exit_code_after(lambda: _train(argv))
        if not commands[name].screen:
            gc.enable()
        return exit_code_after(lambda: run_command(commands[name], argv, program="r18-tui"))
    finally:
        gc.enable()


def all_commands() -> dict[str, Subcommand]:
    """All commands except training, including those without a screen."""
    from trainer.cli import COMMANDS, Subcommand

    usage = "r18-tui {} [group.key=value ...] [--runs-dir DIR]"
    return COMMANDS | {
        "show": Subcommand("tui.commands.show", "Open a run in the dashboard, read-only.", screen=True),
        "attach": Subcommand(
            "tui.commands.attach",
            "Watch and control a run that another process is training, from up to 32 terminals.", screen=True,
        ),
        "runs": Subcommand(
            "tui.commands.runs", "List the runs of a folder with their status; open, compare, resume and delete them.",
            screen=True,
        ),
        "report": Subcommand("tui.commands.report", "Write a run as one page for a browser."),
        "find-lr": Subcommand(
            "tui.commands.find_lr", "Try learning rates with a configuration, and suggest one.", settings=True,
            usage=usage.format("find-lr CONFIG"),
        ),
        "doctor": Subcommand(
            "tui.commands.doctor",
            "Check for problems that keep a run from starting or continuing; the exit code says whether one can start.",
            settings=True, usage=usage.format("doctor [CONFIG]"),
        ),
    }  # fmt: skip


def _train(argv: Sequence[str]) -> int:
    """Train, or show the choices where nothing is given."""
    from trainer.options import split_overrides

    tokens = split_overrides(argv)
    parser = _train_parser()
    given = parser.parse_args(tokens.rest)
    if given.config is None and given.resume is None:
        if tokens.overrides or given.headless or given.name or given.detach or given.nproc > 1:
            parser.error("CONFIG is missing; for example: r18-tui digits")
        return _welcome(given)
    from tui.commands.train import train

    return train(given, tokens.overrides)


def _train_parser() -> argparse.ArgumentParser:
    import trainer
    from trainer.options import add_train_arguments, positive

    parser = argparse.ArgumentParser(
        prog="r18-tui",
        description="Train ResNet-18 in a live terminal dashboard.",
        usage="r18-tui [CONFIG] [group.key=value ...] [--name NAME] [--runs-dir DIR] [--resume [RUN]]\n"
        "               [--detach] [--headless] [--nproc N] [--low-bandwidth]\n"
        "       r18-tui init FOLDER | doctor [CONFIG] | find-lr CONFIG | attach [RUN] | show RUN | report RUN | runs\n"
        "       r18-tui export RUN | predict MODEL PATH... | eval MODEL [MODEL] [--data DIR] | bench [CONFIG...]\n"
        "       r18-tui sync RUN --to TRACKER",
        epilog="examples:\n  r18-tui digits\n  r18-tui configs/cifar.yaml train.epochs=40\n  r18-tui --resume latest",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_train_arguments(parser)
    parser.add_argument("--headless", action="store_true", help="plain lines instead of the dashboard")
    parser.add_argument("--low-bandwidth", action="store_true", help="redraw every 4 s at most, for a slow link")
    parser.add_argument("--detach", action="store_true", help="train in the background; return with: r18-tui attach")
    parser.add_argument(
        "--nproc", type=positive, default=1, metavar="N", help="train with N processes, one per GPU, under torchrun"
    )
    parser.add_argument("--version", action="version", version=f"r18-tui {trainer.__version__}")
    return parser


def _welcome(arguments: argparse.Namespace) -> int:
    from tui.commands.start import choose, print_choices
    from tui.terminal.private_terminal import is_terminal, wait_for_foreground

    if not is_terminal():
        return print_choices(arguments.runs_dir)
    wait_for_foreground()
    gc.enable()
    return choose(arguments.runs_dir)


if __name__ == "__main__":
    sys.exit(main())
