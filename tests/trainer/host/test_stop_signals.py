"""Signals that stop a run or save it, and signals that were ignored at its start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.running import events_of, new_run, wait_for
from trainer.config.schema import Config
from trainer.host.stop_signals import DOUBLED_S, SIGNAL_CODES, WARNINGS, ignore_warnings, install_stop_handlers
from trainer.run.log.result_events import CheckpointSaved
from trainer.session.training_thread import TrainingThread


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Restores the signal handlers."""
    before = {number: signal.getsignal(number) for number in (*SIGNAL_CODES, *WARNINGS.values())}
    for number in before:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNAL_CODES)
def test_duplicates_of_a_signal_stop_once(number: signal.Signals) -> None:
    stops: list[tuple[str, int]] = []
    install_stop_handlers(lambda name, code: stops.append((name, code)))
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)
    assert stops == [(number.name, SIGNAL_CODES[number])]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_request_ends_a_process_whose_save_hangs(number: signal.Signals) -> None:
    code = (
        "import time; from trainer.host.stop_signals import install_stop_handlers\n"
        "install_stop_handlers(lambda *_: print('asked', flush=True)); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "asked\n"
        process.send_signal(number)
        time.sleep(DOUBLED_S + 0.1)
        assert process.poll() is None, "a duplicate of the same request"
        process.send_signal(number)
        assert process.wait(10) == -number


def test_a_hang_up_can_have_its_own_handler() -> None:
    stops: list[str] = []
    hang_ups: list[int] = []
    install_stop_handlers(lambda name, _: stops.append(name), lambda: hang_ups.append(1))
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGTERM)
    assert (stops, hang_ups) == (["SIGTERM"], [1])


def test_signals_ignored_at_the_start_stay_ignored() -> None:
    stops: list[str] = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # & in a script
    install_stop_handlers(lambda name, _: stops.append(name), lambda: stops.append("hang-up"))
    for number in SIGNAL_CODES:
        os.kill(os.getpid(), number)
    assert stops == ["SIGTERM"], "only SIGTERM may stop it"


@pytest.mark.parametrize("name", WARNINGS)
def test_a_warning_signal_saves_and_stops_only_if_listed(name: str) -> None:
    ignore_warnings()
    os.kill(os.getpid(), WARNINGS[name])  # no effect before there is a run
    calls: list[object] = []
    install_stop_handlers(lambda *stop: calls.append(stop), save=calls.append)
    os.kill(os.getpid(), WARNINGS[name])
    os.kill(os.getpid(), WARNINGS[name])  # the launcher's copy
    assert calls == [name]
    calls.clear()
    install_stop_handlers(lambda *stop: calls.append(stop), save=calls.append, stop_on=[name])
    for number in (WARNINGS[name], WARNINGS[name], signal.SIGTERM):  # the announced end is not a second request
        os.kill(os.getpid(), number)
    assert calls == [(name, 128 + WARNINGS[name])]


def test_no_external_signal_kills_a_training_process() -> None:
    """All signals whose default action ends a process, except those of crashes and those that programs request."""
    crashes = {
        "SIGQUIT", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP", "SIGKILL", "SIGSTKFLT",
    }  # fmt: skip
    requested = {"SIGPROF", "SIGIO", "SIGPOLL", "SIGRTMIN", "SIGRTMAX", "SIGIOT"}
    ignored_or_stopping = {
        "SIGCHLD", "SIGCLD", "SIGCONT", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGWINCH",
    }  # fmt: skip
    install_stop_handlers(lambda *_: None)
    for number in set(signal.Signals):
        if number.name not in crashes | requested | ignored_or_stopping:
            assert signal.getsignal(number) is not signal.SIG_DFL, number.name


def test_a_warning_signal_saves_a_run_and_a_listed_one_stops_it(folder_config: Config, tmp_path: Path) -> None:
    run_config = folder_config.run.model_copy(update={"stop_on_signals": ["SIGUSR2"]})
    train_config = folder_config.train.model_copy(update={"epochs": 5000})
    run = new_run(folder_config.model_copy(update={"run": run_config, "train": train_config}), tmp_path)
    thread = TrainingThread(run, hold_open=False)
    thread.take_signals()
    thread.start()
    wait_for(run.run_dir, lambda view: view.step > 1)
    os.kill(os.getpid(), signal.SIGUSR1)
    wait_for(run.run_dir, lambda _: bool(events_of(run.run_dir, CheckpointSaved)))
    os.kill(os.getpid(), signal.SIGUSR2)
    assert thread.join(60)
    assert thread.exit_code == 128 + signal.SIGUSR2
    saved = events_of(run.run_dir, CheckpointSaved)
    assert len(saved) >= 2
    assert not any(event.pinned for event in saved), (
        "checkpoints of warnings are not pinned, so they cannot fill the disk"
    )


@pytest.mark.parametrize(
    "start", ["from tui.cli import main; main()", "import runpy; runpy.run_module('trainer', run_name='__main__')"]
)
@pytest.mark.parametrize("words", [["--help"], ["show", "no-such-run"], ["no-such-command"]])
def test_ctrl_c_after_the_work_is_done_leaves_no_traceback(start: str, words: list[str]) -> None:
    code = "import atexit, os, signal, sys; atexit.register(os.kill, os.getpid(), signal.SIGINT); " + start
    result = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == -signal.SIGINT
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr
