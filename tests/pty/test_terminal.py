"""The program in real pseudo-terminals: start, keys, signals, hang-ups, crashes, workers."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import TINY, FolderMaker
from tests.pty.program import MANY_EPOCHS, MODULES, PROGRAM, code_of, in_shell, launcher_of, run_of, start
from tests.support.canned import opened, started, steps
from tests.support.pseudo_terminal import PseudoTerminal
from tests.support.running import view_of, wait_for
from tests.support.written_runs import write_log
from trainer.host.stop_signals import DOUBLED_S
from trainer.model.checkpoint_folder import CheckpointFolder
from trainer.run.folder.lock import read_owner
from trainer.run.log.run_events import Finished
from trainer.run.status import RunState

pytestmark = pytest.mark.pty


def test_the_first_frame_comes_before_pytorch_and_quitting_saves(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with start(runs, *MANY_EPOCHS) as terminal:
        terminal.wait_for("loading PyTorch", 20)
        terminal.wait_for("● training", 90)
        terminal.wait_for(r"step [1-9]", 60)
        terminal.send("q")
        terminal.wait_for("Leave this run")
        terminal.send("s")
        assert code_of(terminal) == 0
        assert "stopped at step" in terminal.text, "the result stays in the scrollback"
        assert "resume with  r18-tui --resume" in terminal.text
        assert terminal.raw.rstrip().find(b"\x1b[?1049l") > 0, "the alternate screen was left"
    view = view_of(run_of(runs))
    assert view.state is RunState.FINISHED
    assert CheckpointFolder(run_of(runs), keep=2).steps() == [view.step]


def test_a_finished_run_stays_on_the_screen_and_reopens_without_torch(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with start(runs, *TINY, "train.epochs=1") as terminal:
        terminal.wait_for("● finished", 120)
        terminal.send("q")
        assert code_of(terminal) == 0
        assert "completed at step" in terminal.text
    show = [*PROGRAM, "show", str(run_of(runs).path)]
    with PseudoTerminal(show, env={"PYTHONPATH": MODULES}) as terminal:
        terminal.wait_for("● finished", 20)
        for part in ("read-only", "epoch 1/1", "Per-class test accuracy", "completed at step"):
            terminal.wait_for(part, 10)
        libraries = " ".join(entry.path for entry in psutil.Process(terminal.pid).memory_maps())
        assert "libtorch" not in libraries
        assert "pydantic_core" not in libraries
        assert "orjson" in libraries, "the libraries must be listed for this to mean anything"
        terminal.send("c")
        terminal.wait_for("view only")
        terminal.send("q")
        assert terminal.wait_exit(20) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGXCPU, 152)])
def test_a_signal_to_the_launcher_stops_saves_and_restores_the_terminal(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    runs = tmp_path / "runs"
    with start(runs, *MANY_EPOCHS) as terminal:
        terminal.wait_for(r"step [1-9]", 120)
        launcher_of(terminal).send_signal(signal.SIGUSR1)  # a warning, as Slurm sends before the time limit
        wait_for(run_of(runs), lambda view: any("SIGUSR1: saving" in note.text for note in view.notes))
        launcher_of(terminal).send_signal(number)
        assert code_of(terminal) == code
        assert b"\x1b[?1049l" in terminal.raw
    view = view_of(run_of(runs))
    assert view.finish is not None
    assert view.finish.reason == number.name
    assert view.checkpoints[-1].step == view.step
    assert read_owner(run_of(runs)) is None


def test_the_terminal_is_restored_after_the_trainer_is_killed(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with start(runs, *MANY_EPOCHS) as terminal:
        terminal.wait_for("loading PyTorch|training", 60)
        trainer = launcher_of(terminal).children()[0]
        trainer.kill()
        assert code_of(terminal) == 137
        assert changed_modes(bytes(terminal.raw)) == []


def write_finished_run(folder: Path) -> None:
    finished = Finished(reason="completed", step=100, epoch=1.0, exit_code=0)
    write_log(folder, "done", opened(), started(), steps(1), finished)


def changed_modes(written: bytes) -> list[str]:
    """Terminal modes, by number, and screens with kitty keyboard flags that these bytes leave changed."""
    usual = {"7", "25"}
    modes: set[str] = set(usual)
    kitty = {"main": 0, "alternate": 0}
    for mark, number, end in re.findall(r"\x1b\[([?<>])([0-9]*)([hlu])", written.decode("utf-8", "replace")):
        if mark == "?":
            modes = modes | {number} if end == "h" else modes - {number}
        elif end == "u":
            kitty["alternate" if "1049" in modes else "main"] += 1 if mark == ">" else -1
    kitty["alternate"] = max(kitty["alternate"], 0)  # popping an empty stack does nothing
    return sorted(modes ^ usual) + [screen for screen, flags in kitty.items() if flags]


def test_a_viewer_restores_the_terminal_at_its_end(tmp_path: Path) -> None:
    write_finished_run(tmp_path)
    with in_shell([*PROGRAM, "show", str(tmp_path / "done")], tmp_path) as terminal:
        terminal.wait_for("finished", 30)
        assert changed_modes(bytes(terminal.raw)) == [
            "1000", "1003", "1004", "1006", "1015", "1049", "2004", "25", "7", "alternate",
        ]  # fmt: skip
        terminal.send("q")
        assert code_of(terminal) == 0
        assert changed_modes(bytes(terminal.raw)) == []


@pytest.mark.parametrize("command", ["show", "runs"])
def test_the_next_start_restores_the_terminal_of_a_killed_viewer(tmp_path: Path, command: str) -> None:
    write_finished_run(tmp_path)
    viewer = [*PROGRAM, command, *([str(tmp_path / "done")] if command == "show" else []), "--runs-dir", str(tmp_path)]
    with in_shell([*viewer, ";", *PROGRAM, "--version"], tmp_path) as terminal:
        terminal.wait_for("finished", 30)
        (process,) = (one for one in psutil.Process(terminal.pid).children(recursive=True) if command in one.cmdline())
        process.kill()
        assert code_of(terminal) == 0
        assert changed_modes(bytes(terminal.raw)) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_viewer_restores_the_terminal_on_a_signal(tmp_path: Path, number: signal.Signals, code: int) -> None:
    write_log(tmp_path, "done", opened(), started(), steps(1))
    with in_shell([*PROGRAM, "show", "done", "--runs-dir", str(tmp_path)], tmp_path) as terminal:
        terminal.wait_for("Loss", 30)
        (viewer,) = (one for one in psutil.Process(terminal.pid).children(recursive=True) if "show" in one.cmdline())
        viewer.send_signal(number)
        assert code_of(terminal) == code
        assert changed_modes(bytes(terminal.raw)) == []
        assert "Traceback" not in terminal.text


@pytest.mark.parametrize("name", ["dumb", ""])
def test_a_dumb_terminal_gets_plain_lines(tmp_path: Path, name: str) -> None:
    write_finished_run(tmp_path)
    trained = ["digits", *TINY, "train.epochs=1", "data.batch_size=256"]
    for command in (["show", "done"], ["runs"], [], *([trained] if name else [])):
        with PseudoTerminal(
            [*PROGRAM, *command, "--runs-dir", str(tmp_path)],
            env={"PYTHONPATH": MODULES, "TERM": name},
            cwd=str(tmp_path),
        ) as terminal:
            assert terminal.wait_exit(120) == 0
            assert b"\x1b" not in terminal.raw
            assert len(terminal.raw) > 100


def test_prints_of_workers_and_libraries_never_reach_the_screen(tmp_path: Path, make_folder: FolderMaker) -> None:
    root = make_folder()
    runs = tmp_path / "runs"
    data = ["data.kind=imagefolder", f"data.root={root}", "data.cache=none", "data.workers=2", "data.crop_pct=1.0"]
    arguments = [*TINY, "train.epochs=3", *data]
    noisy = tmp_path / "sitecustomize.py"
    noisy.write_text(
        "import logging, os, sys, threading, time, warnings\n"
        "def talk():\n"
        "    while 'trainer.session.session' not in sys.modules:\n"
        "        time.sleep(0.05)\n"
        "    print('NOISE PRINTED')\n"
        "    warnings.warn('NOISE WARNED')\n"
        "    logging.getLogger().warning('NOISE LOGGED')\n"
        "    os.write(1, b'NOISE OF NATIVE CODE\\n')\n"
        "os.register_at_fork(after_in_child=lambda: threading.Thread(target=talk, daemon=True).start())\n"
        "if 'spawn_main' in ' '.join(sys.orig_argv):\n"
        "    print('NOISE ON ONE', flush=True)\n"
        "    os.write(2, b'NOISE ON TWO\\n')\n"
    )
    command = [*PROGRAM, "digits", "--runs-dir", str(runs), *arguments]
    with in_shell(command, tmp_path, modules=f"{tmp_path}:{MODULES}") as terminal:
        terminal.wait_for("● finished", 150)
        assert b"NOISE" not in terminal.raw
        terminal.send("q")
        assert code_of(terminal) == 0
    log = run_of(runs).log.read_text()
    for kind in ("ON ONE", "ON TWO", "PRINTED", "WARNED", "LOGGED", "OF NATIVE CODE"):
        assert f"NOISE {kind}" in log
    assert view_of(run_of(runs)).step == 12


def test_a_failed_preparation_stays_on_the_screen_until_q(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with start(runs, "data.kind=imagefolder", f"data.root={tmp_path / 'nowhere'}") as terminal:
        terminal.wait_for("● failed", 60)
        terminal.wait_for("no such folder")
        terminal.wait_for("train/<class>", 10)
        terminal.send("q")
        assert code_of(terminal) == 2
    assert not runs.exists()


def test_without_a_terminal_plain_lines_are_printed(tmp_path: Path) -> None:
    import subprocess

    command = [*PROGRAM, "digits", "--runs-dir", str(tmp_path / "runs"), *TINY, "train.epochs=1", "data.batch_size=64"]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"PYTHONPATH": MODULES},
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout
    assert "epoch 1/1" in result.stdout
    assert "img/s" in result.stdout
    assert run_of(tmp_path / "runs").results.is_file()


def test_ctrl_c_without_a_dashboard_saves_and_exits_with_130(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with start(runs, "--headless", *MANY_EPOCHS) as terminal:
        terminal.wait_for("images", 90)
        time.sleep(1.0)
        terminal.send("\x03")
        terminal.wait_for("SIGINT at step", 60)
    view = view_of(run_of(runs))
    assert view.finish is not None
    assert view.finish.exit_code == 130
    assert view.checkpoints[-1].step == view.step


def test_a_second_signal_ends_at_once_and_restores_the_terminal(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with start(runs, *MANY_EPOCHS) as terminal:
        # While PyTorch is imported, the first signal has no effect yet.
        terminal.wait_for("loading PyTorch", 30)
        launcher = launcher_of(terminal)
        launcher.send_signal(signal.SIGTERM)
        time.sleep(DOUBLED_S + 0.2)
        if launcher.is_running():
            launcher.send_signal(signal.SIGTERM)
        assert code_of(terminal) == 143
        assert b"\x1b[?1049l" in terminal.raw


def test_signals_to_every_process_count_as_one_request(tmp_path: Path) -> None:
    """systemd and SLURM signal the launcher and the trainer, and the launcher forwards its own signal."""
    runs = tmp_path / "runs"
    with start(runs, *MANY_EPOCHS) as terminal:
        terminal.wait_for(r"step [1-9]", 120)
        launcher = launcher_of(terminal)
        for process in (launcher, *launcher.children()):
            process.send_signal(signal.SIGTERM)
        assert code_of(terminal) == 143
    view = view_of(run_of(runs))
    assert view.finish is not None
    assert view.checkpoints[-1].step == view.step
