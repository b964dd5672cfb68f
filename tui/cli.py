"""`r18-tui`: parses arguments, opens the run, shows the dashboard, closes. Each process imports modules only when needed."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from trainer.host.standard_streams import open_standard_streams, write_out
from trainer.host.stop_signals import ignore_warnings
from tui.terminal.package_clash import foreign_packages
from tui.terminal.terminal_mark import restore_after_a_kill

if TYPE_CHECKING:
    from trainer.commands.arguments import Tokens
    from trainer.session.open_run import OpenRun
    from trainer.session.request import Request
    from tui.terminal.launcher import LauncherLink


def main(argv: Sequence[str] | None = None) -> int:
    """Run the console script.

    Args:
        argv: Arguments without the program's name; None takes `sys.argv`.

    Returns:
        The exit code: 0 done, 2 usage or configuration, 75 resumable, 129/130/143 after a signal and a save
        (128 + number for those of `run.stop_on_signals`), else 1.
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
    foreign = foreign_packages()
    if foreign:
        sys.stderr.write("\n".join(foreign) + "\n")
        return 2
    from trainer.cli import COMMANDS, exit_code_after
    from trainer.commands.arguments import split_overrides

    try:
        if argv and argv[0] in COMMANDS:
            return exit_code_after(lambda: _run_command(argv[0], argv[1:]))
        return exit_code_after(lambda: _dispatch(split_overrides(argv)))
    finally:
        gc.enable()


def _dispatch(tokens: Tokens) -> int:
    command = tokens.rest[0] if tokens.rest else ""
    if command in _WITH_OVERRIDES:
        return _WITH_OVERRIDES[command](tokens)
    if command in _COMMANDS:
        from trainer.commands.arguments import refuse_overrides

        refuse_overrides(tokens, command)
        return _COMMANDS[command](tokens.rest[1:])
    parser = _train_parser()
    arguments = parser.parse_args(tokens.rest)
    if arguments.config is None and arguments.resume is None:
        if tokens.overrides or arguments.headless or arguments.name or arguments.detach or arguments.nproc > 1:
            parser.error("CONFIG is missing; for example: r18-tui digits")
        return _welcome(arguments)
    return _train(arguments, tokens.overrides)


def _train_parser() -> argparse.ArgumentParser:
    import trainer
    from trainer.commands.arguments import add_train_arguments, positive

    parser = argparse.ArgumentParser(
        prog="r18-tui",
        description="Train ResNet-18 in a live terminal dashboard.",
        usage="r18-tui [CONFIG] [group.key=value ...] [--name NAME] [--runs-dir DIR] [--resume [RUN]]\n"
        "               [--detach] [--headless] [--nproc N] [--low-bandwidth]\n"
        "       r18-tui init FOLDER | doctor [CONFIG] | find-lr CONFIG | attach [RUN] | show RUN | report RUN | runs\n"
        "       r18-tui export RUN | predict MODEL PATH... | eval MODEL [MODEL] [--data DIR] | bench [CONFIG...]\n"
        "       r18-tui sync RUN --to TRACKER",
        epilog="Examples: r18-tui digits    r18-tui configs/cifar.yaml train.epochs=40    r18-tui --resume latest",
    )
    add_train_arguments(parser)
    parser.add_argument("--headless", action="store_true", help="plain lines instead of the dashboard")
    _add_low_bandwidth(parser)
    parser.add_argument("--detach", action="store_true", help="train in the background; r18-tui attach comes back")
    parser.add_argument(
        "--nproc", type=positive, default=1, metavar="N", help="train with N processes, one a GPU, under torchrun"
    )
    parser.add_argument("--version", action="version", version=f"r18-tui {trainer.__version__}")
    return parser


def _show_parser() -> argparse.ArgumentParser:
    from trainer.commands.arguments import add_runs_dir

    parser = argparse.ArgumentParser(prog="r18-tui show", description="Open a run in the dashboard, read-only.")
    parser.add_argument("run", metavar="RUN", help="a run directory, a name, or latest")
    printed = parser.add_mutually_exclusive_group()
    printed.add_argument("--plain", action="store_true", help="print a report instead")
    printed.add_argument("--json", action="store_true", help="print how it stands, for other programs")
    printed.add_argument("--csv", action="store_true", help="print a line for every step")
    _add_low_bandwidth(parser)
    add_runs_dir(parser)
    return parser


def _add_low_bandwidth(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--low-bandwidth", action="store_true", help="redraw every 4 s at most, for a slow link")


def _report_parser() -> argparse.ArgumentParser:
    from pathlib import Path

    from trainer.commands.arguments import add_runs_dir

    parser = argparse.ArgumentParser(prog="r18-tui report", description="Write a run as one page for a browser.")
    parser.add_argument("run", metavar="RUN", help="a run directory, a name, or latest")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="what is written (default: report.html in the run directory)"
    )
    add_runs_dir(parser)
    return parser


def _attach_parser() -> argparse.ArgumentParser:
    from trainer.commands.arguments import add_runs_dir

    parser = argparse.ArgumentParser(
        prog="r18-tui attach",
        description="Come back to a run that another process trains, from any number of terminals.",
    )
    parser.add_argument(
        "run", metavar="RUN", nargs="?", help="a run directory, a name, or latest (default: the newest that is trained)"
    )
    parser.add_argument("--read-only", action="store_true", help="watch, and steer nothing")
    _add_low_bandwidth(parser)
    add_runs_dir(parser)
    return parser


def _runs_parser() -> argparse.ArgumentParser:
    from trainer.commands.arguments import add_runs_dir

    parser = argparse.ArgumentParser(
        prog="r18-tui runs",
        description="All runs of a folder: how they stand; open, compare, resume and delete them.",
    )
    parser.add_argument("--plain", action="store_true", help="print the list instead")
    add_runs_dir(parser)
    return parser


def _welcome(arguments: argparse.Namespace) -> int:
    """Without a configuration: show the available choices."""
    from tui.commands.start import choose, print_choices
    from tui.terminal.private_terminal import is_terminal, wait_for_foreground

    if not is_terminal():
        return print_choices(arguments.runs_dir)
    wait_for_foreground()
    gc.enable()
    return choose(arguments.runs_dir)


def _run_command(name: str, rest: Sequence[str]) -> int:
    from trainer.cli import run_command

    gc.enable()
    return run_command(name, rest, program="r18-tui")


def _find_lr(tokens: Tokens) -> int:
    from trainer.commands.arguments import add_runs_dir
    from tui.commands.find_lr import command

    gc.enable()
    parser = argparse.ArgumentParser(
        prog="r18-tui find-lr",
        description="Try learning rates with a configuration, and suggest one.",
        usage="r18-tui find-lr CONFIG [group.key=value ...] [--runs-dir DIR]",
    )
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, or the name of a shipped configuration")
    add_runs_dir(parser)
    return command(parser.parse_args(tokens.rest[1:]), tokens.overrides)


def _doctor(tokens: Tokens) -> int:
    from trainer.commands.arguments import add_runs_dir
    from tui.commands.doctor import command

    gc.enable()
    parser = argparse.ArgumentParser(
        prog="r18-tui doctor",
        description="Look for what could keep a run from starting or from going on; the exit code says whether one can start.",
        usage="r18-tui doctor [CONFIG] [group.key=value ...] [--runs-dir DIR]",
    )
    parser.add_argument("config", metavar="CONFIG", nargs="?", help="also look at what this configuration needs")
    add_runs_dir(parser)
    return command(parser.parse_args(tokens.rest[1:]), tokens.overrides)


def _show(rest: list[str]) -> int:
    from trainer.run.folder.run_dir import find_run
    from tui.commands.show import print_csv, print_json, print_report, show_recorded

    arguments = _show_parser().parse_args(rest)
    run_dir = find_run(arguments.run, arguments.runs_dir)
    from tui.terminal.private_terminal import is_terminal, wait_for_foreground

    if arguments.json or arguments.csv:
        return print_json(run_dir) if arguments.json else print_csv(run_dir)
    if arguments.plain or not is_terminal():
        return print_report(run_dir)
    wait_for_foreground()
    return show_recorded(run_dir, low_bandwidth=arguments.low_bandwidth)


def _report(rest: list[str]) -> int:
    from trainer.run.folder.run_dir import find_run
    from tui.commands.report import write_report

    gc.enable()
    arguments = _report_parser().parse_args(rest)
    run_dir = find_run(arguments.run, arguments.runs_dir)
    write_out(f"wrote {write_report(run_dir, arguments.output)}\n")
    return 0


def _attach(rest: list[str]) -> int:
    from trainer.errors import ConfigError
    from trainer.run.folder.lock import newest_live
    from trainer.run.folder.run_dir import find_run
    from tui.commands.show import attach
    from tui.terminal.private_terminal import is_terminal, wait_for_foreground

    arguments = _attach_parser().parse_args(rest)
    run_dir = find_run(arguments.run, arguments.runs_dir) if arguments.run else newest_live(arguments.runs_dir)
    if not is_terminal():
        raise ConfigError(f"attach needs a terminal; for a report: r18-tui show {run_dir.path} --plain")
    wait_for_foreground()
    return attach(run_dir, read_only=arguments.read_only, low_bandwidth=arguments.low_bandwidth)


def _runs(rest: list[str]) -> int:
    from tui.commands.show import print_runs, show_runs
    from tui.terminal.private_terminal import is_terminal, wait_for_foreground

    arguments = _runs_parser().parse_args(rest)
    if arguments.plain or not is_terminal():
        return print_runs(arguments.runs_dir)
    wait_for_foreground()
    return show_runs(arguments.runs_dir)


def _train(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from trainer.errors import ConfigError
    from trainer.host.torchrun import under_torchrun
    from tui.terminal.launcher import run_in_own_session
    from tui.terminal.private_terminal import is_terminal, wait_for_foreground

    if under_torchrun():
        raise ConfigError("torchrun starts `-m trainer`, which needs no terminal; or: r18-tui CONFIG --nproc N")
    if arguments.nproc > 1:
        return _train_with_several(arguments, overrides)
    if arguments.detach:
        return run_in_own_session(lambda: _check(arguments, overrides).to_json(), _in_background)
    if arguments.headless or not is_terminal():
        from trainer.commands.train import train_headless

        gc.enable()
        return train_headless(_check(arguments, overrides))
    wait_for_foreground()
    return run_in_own_session(lambda: _check(arguments, overrides).to_json(), _dashboard)


def _train_with_several(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from tui.commands.show import attach
    from tui.terminal.private_terminal import is_terminal, wait_for_foreground
    from tui.terminal.torchrun import become_torchrun, start_several

    _check(arguments, overrides)
    if not arguments.detach and (arguments.headless or not is_terminal()):
        become_torchrun(arguments, overrides)
    run_dir = start_several(arguments, overrides)
    if arguments.detach:
        write_out(f"{arguments.nproc} processes train {run_dir.name}; come to it with: {run_dir.attach_command()}\n")
        return 0
    wait_for_foreground()
    return attach(run_dir, read_only=False, low_bandwidth=arguments.low_bandwidth)


def _check(arguments: argparse.Namespace, overrides: list[str]) -> Request:
    """Explain a wrong configuration before anything is written."""
    from trainer.commands.train import check_request

    return check_request(arguments, [*overrides, *(["ui.low_bandwidth=true"] if arguments.low_bandwidth else [])])


def _dashboard(link: LauncherLink) -> int:
    """In the child: import everything that does not depend on the request, wait for it from the launcher, and carry it out."""
    from tui.commands.show import import_dashboard, train_in_dashboard

    import_dashboard()
    return _carry_out(link, train_in_dashboard)


def _in_background(link: LauncherLink) -> int:
    """In the child: train without a screen."""
    from tui.terminal.background import train_in_background

    gc.enable()
    return _carry_out(link, train_in_background)


def _carry_out(link: LauncherLink, train: Callable[[OpenRun, str, LauncherLink], int]) -> int:
    from trainer.cli import complain
    from trainer.errors import EXIT_SIGHUP, R18Error
    from trainer.session.request import Request

    line = link.receive()
    if line is None or link.launcher_gone:
        return EXIT_SIGHUP  # no other process waits for this one any more
    request = Request.from_json(line)
    try:
        run = request.open()
    except R18Error as error:
        return complain(error)
    return train(run, request.remark, link)


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "attach": _attach, "show": _show, "runs": _runs, "report": _report,
}  # fmt: skip

_WITH_OVERRIDES: dict[str, Callable[[Tokens], int]] = {"find-lr": _find_lr, "doctor": _doctor}

if __name__ == "__main__":
    sys.exit(main())
