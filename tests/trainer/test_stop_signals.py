"""Which signals stop a run, and which were ruled out by whoever started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from trainer.stop_signals import DOUBLED_S, SIGNAL_CODES, install_stop_handlers


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Puts the signals' handlers back."""
    before = {number: signal.getsignal(number) for number in SIGNAL_CODES}
    for number in SIGNAL_CODES:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNAL_CODES)
def test_a_signal_stops_once_however_many_ways_it_takes(number: signal.Signals) -> None:
    stops: list[tuple[str, int]] = []
    install_stop_handlers(lambda name, code: stops.append((name, code)))
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)
    assert stops == [(number.name, SIGNAL_CODES[number])]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_request_ends_a_process_whose_save_hangs(number: signal.Signals) -> None:
    code = (
        "import time; from trainer.stop_signals import install_stop_handlers\n"
        "install_stop_handlers(lambda *_: print('asked', flush=True)); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "asked\n"
        process.send_signal(number)
        time.sleep(DOUBLED_S + 0.1)
        assert process.poll() is None, "the same request on another way"
        process.send_signal(number)
        assert process.wait(10) == -number


def test_a_hang_up_is_left_to_whoever_can_go_on_without_a_terminal() -> None:
    stops: list[str] = []
    hang_ups: list[int] = []
    install_stop_handlers(lambda name, _: stops.append(name), lambda: hang_ups.append(1))
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGTERM)
    assert (stops, hang_ups) == (["SIGTERM"], [1])


def test_what_was_ignored_from_the_start_stays_ignored() -> None:
    stops: list[str] = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # & in a script
    install_stop_handlers(lambda name, _: stops.append(name), lambda: stops.append("hang-up"))
    for number in SIGNAL_CODES:
        os.kill(os.getpid(), number)
    assert stops == ["SIGTERM"], "only a scheduler may stop it"
