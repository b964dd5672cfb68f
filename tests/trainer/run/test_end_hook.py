"""The user's command at the end of a run: its environment, its errors, and that the run does not wait for it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.support.running import train
from trainer.config.schema import Config
from trainer.errors import ConfigError
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.end_hook import EndHook
from trainer.run.log.event import Event, Record
from trainer.run.log.run_events import Diverged, Failed, Finished, Heartbeat

pytestmark = pytest.mark.usefixtures("narrow_network")

SCRIPT = """
import os, sys
open(sys.argv[1], "a").write("|".join(os.environ[name] for name in ("R18_TUI_RUN", "R18_TUI_EVENT", "R18_TUI_MESSAGE")) + "\\n")
"""
FAILED = Failed(error="out of memory; $(rm -rf /)", exit_code=1)


def hook_for(tmp_path: Path) -> tuple[EndHook, Path]:
    script, output = tmp_path / "my hook.py", tmp_path / "output.txt"
    script.write_text(SCRIPT)
    return EndHook(RunDir(tmp_path / "run"), {"R18_TUI_HOOK": f"{sys.executable} '{script}' {output}"}), output


def wait_for(path: Path) -> str:
    end = time.monotonic() + 20
    while not path.exists() or not path.read_text().endswith("\n"):
        assert time.monotonic() < end, "the command was not run"
        time.sleep(0.02)
    return path.read_text()


def record(event: Event) -> Record:
    return Record(seq=0, time=0.0, event=event)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Finished(reason="completed", step=1200, epoch=3.0, exit_code=0), "finished|completed at step 1,200"),
        (FAILED, "failed|out of memory; $(rm -rf /)"),
        (
            Diverged(step=310, in_a_row=10, checkpoint=""),
            "held|10 non-finite steps in a row; the run waits at step 310",
        ),
    ],
)
def test_the_hook_gets_the_event_without_a_shell(tmp_path: Path, event: Event, expected: str) -> None:
    hook, path = hook_for(tmp_path)
    hook.observe(record(event))
    assert wait_for(path) == f"{tmp_path / 'run'}|{expected}\n"


def test_other_events_and_a_missing_hook_run_no_command(tmp_path: Path) -> None:
    hook, path = hook_for(tmp_path)
    hook.observe(record(Heartbeat()))
    EndHook(RunDir(tmp_path), {}).observe(record(FAILED))
    time.sleep(0.2)
    assert not path.exists()


@pytest.mark.parametrize(
    ("command", "reason"),
    [("/no/such/command x", "no such command: /no/such/command"), ("unbalanced 'quote", "No closing")],
)
def test_a_missing_command_is_refused_at_the_start(tmp_path: Path, command: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        EndHook(RunDir(tmp_path), {"R18_TUI_HOOK": command})


def test_a_run_calls_the_hook_at_its_end(
    folder_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, output = tmp_path / "my hook.py", tmp_path / "output.txt"
    script.write_text(SCRIPT)
    monkeypatch.setenv("R18_TUI_HOOK", f"{sys.executable} '{script}' {output}")
    run = train(folder_config, tmp_path).run.run_dir
    assert wait_for(output) == f"{run.path}|finished|completed at step 8\n"
