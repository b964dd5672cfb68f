"""`r18-tui CONFIG`: trains in the dashboard, in the background, without a screen, or with several processes."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable
from typing import TYPE_CHECKING

from trainer.errors import ConfigError
from trainer.host.standard_streams import write_out
from trainer.host.torchrun import under_torchrun
from tui.terminal.launcher import run_in_own_session
from tui.terminal.private_terminal import is_terminal, wait_for_foreground

if TYPE_CHECKING:
    from trainer.session.open_run import OpenRun
    from trainer.session.request import Request
    from tui.terminal.launcher import LauncherLink


def train(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Train a run, with `overrides` of the form `group.key=value`; returns the exit code."""
    if under_torchrun():
        raise ConfigError(
            "torchrun cannot run the dashboard; start -m trainer with it, or use: r18-tui CONFIG --nproc N"
        )
    if arguments.nproc > 1:
        return _train_with_several(arguments, overrides)
    if arguments.detach:
        return run_in_own_session(lambda: _check(arguments, overrides).to_json(), _in_background)
    if arguments.headless or not is_terminal():
        from trainer.commands.train_request import train_headless

        gc.enable()
        return train_headless(_check(arguments, overrides))
    wait_for_foreground()
    return run_in_own_session(lambda: _check(arguments, overrides).to_json(), _dashboard)


def _train_with_several(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from tui.app.show_in_terminal import look_at
    from tui.state.run_port import attached_port
    from tui.state.ui_settings import UiSettings
    from tui.terminal.several_processes import become_torchrun, start_several

    _check(arguments, overrides)
    if not arguments.detach and (arguments.headless or not is_terminal()):
        become_torchrun(arguments, overrides)
    run_dir = start_several(arguments, overrides)
    if arguments.detach:
        write_out(f"{arguments.nproc} processes are training {run_dir.name}; attach with: {run_dir.attach_command()}\n")
        return 0
    wait_for_foreground()
    ui = UiSettings(low_bandwidth=arguments.low_bandwidth)
    return look_at(attached_port(run_dir), run_dir.path.parent, ui)


def _check(arguments: argparse.Namespace, overrides: list[str]) -> Request:
    """Explain a wrong configuration before anything is written."""
    from trainer.commands.train_request import check_request

    return check_request(arguments, [*overrides, *(["ui.low_bandwidth=true"] if arguments.low_bandwidth else [])])


def _dashboard(link: LauncherLink) -> int:
    """In the child: import everything that does not depend on the request, wait for it from the launcher, and carry it out."""
    from tui.app.show_in_terminal import import_dashboard, train_in_dashboard

    import_dashboard()
    return _carry_out(link, train_in_dashboard)


def _in_background(link: LauncherLink) -> int:
    """In the child: train without a screen."""
    from tui.app.show_in_terminal import train_in_background

    gc.enable()
    return _carry_out(link, train_in_background)


def _carry_out(link: LauncherLink, train: Callable[[OpenRun, str, LauncherLink], int]) -> int:
    from trainer.cli import report_error
    from trainer.errors import EXIT_SIGHUP, R18Error
    from trainer.session.request import Request

    line = link.receive()
    if line is None or link.launcher_gone:
        return EXIT_SIGHUP  # no other process waits for this one any more
    request = Request.from_json(line)
    try:
        run = request.open()
    except R18Error as error:
        return report_error(error)
    return train(run, request.remark, link)
