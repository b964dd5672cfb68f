"""The start: messages between launcher and child, signals, exit codes, and the size of the terminal."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from trainer.config.schema import UiConfig
from tui.state.ui_settings import UiSettings
from tui.terminal.private_terminal import terminal_size

ROOT = str(Path(__file__).parents[3])
CHILD = """
import sys, time
from tui.terminal.launcher import run_in_own_session

def main(link):
    line = link.receive()
    print("child", "nothing" if line is None else len(line), link.launcher_gone, flush=True)
    return 7

def refuse():
    raise RuntimeError("refused")

def wait():
    print("waiting", flush=True)
    time.sleep(60)
"""


def start(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD + code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": ROOT}, start_new_session=True,
    )  # fmt: skip


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.01)


@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_the_child_receives_the_order_and_returns_its_exit_code(size: int) -> None:
    process = start(f"sys.exit(run_in_own_session(lambda: b'x' * {size}, main))")
    out, err = process.communicate(timeout=30)
    assert (out, err, process.returncode) == (f"child {size} False\n", "", 7)


def test_the_launcher_ends_with_the_farewell_of_a_detached_child(tmp_path: Path) -> None:
    mark = tmp_path / "went on"
    code = f"""
import pathlib
def leave(link):
    link.receive()
    link.farewell("back with: attach\\n")
    while not pathlib.Path({str(mark)!r} + " may").exists():
        time.sleep(0.01)
    pathlib.Path({str(mark)!r}).touch()
    return 3
sys.exit(run_in_own_session(lambda: b"", leave))
"""
    process = start(code)
    assert process.wait(30) == 0, "the launcher does not wait after the farewell"
    assert process.stdout is not None
    assert process.stdout.readline() == "back with: attach\n"
    assert not mark.exists()
    Path(f"{mark} may").touch()
    wait_until(mark.exists)
    process.communicate(timeout=30)


def test_a_child_that_dies_before_its_order_is_reported(tmp_path: Path) -> None:
    mark = tmp_path / "dead"
    code = f"""
import os, pathlib
def die(link):
    pathlib.Path({str(mark)!r}).touch()
    os.kill(os.getpid(), 9)
def order():
    while not pathlib.Path({str(mark)!r}).exists(): time.sleep(0.01)
    time.sleep(0.1)
    return b"x" * 300_000
sys.exit(run_in_own_session(order, die))"""
    process = start(code)
    _, err = process.communicate(timeout=30)
    assert (err, process.returncode) == ("", 128 + signal.SIGKILL)


def test_a_failed_order_ends_the_child() -> None:
    process = start("""
try:
    run_in_own_session(refuse, main)
except RuntimeError as error:
    print("launcher", error)
""")
    out, err = process.communicate(timeout=30)
    assert (out, err, process.returncode) == ("launcher refused\n", "", 0)


def test_a_child_of_a_killed_launcher_ends() -> None:
    process = start("run_in_own_session(wait, main)")
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.kill()
    out, err = process.communicate(timeout=30)
    assert (out, err) == ("child nothing True\n", "")


def test_ctrl_c_before_the_order_ends_launcher_and_child() -> None:
    process = start("""
try:
    run_in_own_session(wait, main)
except KeyboardInterrupt:
    sys.exit(130)
""")
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    children = psutil.Process(process.pid).children()
    deadline = time.monotonic() + 10
    while any(os.getsid(child.pid) == os.getsid(process.pid) for child in children):
        assert time.monotonic() < deadline, "the child has no session of its own"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (out, err, process.returncode) == ("", "", 130)
    assert not any(child.is_running() for child in children)


def test_ctrl_z_stops_nothing_while_the_child_may_draw(tmp_path: Path) -> None:
    mark = tmp_path / "begun"
    process = start(f"""
import pathlib
def main(link):
    link.receive()
    pathlib.Path({str(mark)!r}).touch()
    time.sleep(1)
    return 5
sys.exit(run_in_own_session(lambda: b"", main))""")
    wait_until(mark.exists)
    os.kill(process.pid, signal.SIGTSTP)
    assert process.wait(30) == 5


def test_the_first_process_of_a_container_waits_for_a_detached_child() -> None:
    process = start("""
import tui.terminal.launcher, subprocess
tui.terminal.launcher.is_main_process = lambda: True
def leave(link):
    link.receive()
    link.farewell("back with: attach\\n")
    time.sleep(0.5)
    return 3
sys.exit(run_in_own_session(lambda: b"", leave))""")
    out, err = process.communicate(timeout=30)
    assert out.startswith("back with: attach\n")
    assert "docker exec -it CONTAINER r18-tui attach" in out
    assert (err, process.returncode) == ("", 3), "the container ends with the run, and with its exit code"


def test_the_dashboards_defaults_equal_the_configurations() -> None:
    assert dataclasses.asdict(UiSettings()) == UiConfig().model_dump()


def test_the_terminal_size_is_read_before_drawing() -> None:
    master, slave = os.openpty()
    assert terminal_size(slave) is None, "a new pseudo-terminal has no size"
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    assert terminal_size(slave) == (100, 30)
    os.close(slave)
    assert terminal_size(slave) is None, "closed"
    os.close(master)
