"""Warnings about machines that would end a background run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from trainer.run.folder.run_dir import RunDir
from tui.terminal.container import main_process
from tui.terminal.logout_hazards import hazards, logind_kills_processes

RUN = RunDir(Path("runs/a run"))


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """The /proc of a login session on a machine with systemd."""
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text("0::/user.slice/user-1000.slice/session-4.scope\n")
    (tmp_path / "1" / "fd").mkdir(parents=True)
    (tmp_path / "1" / "fd" / "0").symlink_to("/dev/null")
    (tmp_path / "1" / "comm").write_text("systemd\n")
    return tmp_path


def test_a_machine_that_ends_processes_at_logout_is_reported_with_the_remedy(proc: Path) -> None:
    assert hazards(RUN, proc, lambda: False) == []
    (warning,) = hazards(RUN, proc, lambda: True)
    assert "KillUserProcesses" in warning
    assert "systemd-run --user --scope r18-tui --resume 'runs/a run' --detach" in warning


def test_logind_is_not_queried_outside_a_session(proc: Path) -> None:
    (proc / "self" / "cgroup").write_text("0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-u7.scope\n")

    def kills() -> bool:
        raise AssertionError("asked")

    assert hazards(RUN, proc, kills) == []


def test_a_container_that_ends_with_its_shell_is_reported(proc: Path) -> None:
    (proc / "self" / "cgroup").write_text("0::/\n")
    (proc / "1" / "comm").write_text("bash\n")
    assert hazards(RUN, proc) == [], "a shell without a terminal runs a script"
    (proc / "1" / "fd" / "0").unlink()
    (proc / "1" / "fd" / "0").symlink_to("/dev/pts/0")
    (warning,) = hazards(RUN, proc)
    assert "docker exec" in warning


def test_a_shell_under_a_small_init_is_the_main_process(proc: Path) -> None:
    (proc / "self" / "cgroup").write_text("0::/\n")
    (proc / "1" / "comm").write_text("docker-init\n")
    (proc / "1" / "task" / "1").mkdir(parents=True)
    (proc / "1" / "task" / "1" / "children").write_text("7 ")
    (proc / "7" / "fd").mkdir(parents=True)
    (proc / "7" / "comm").write_text("zsh\n")
    (proc / "7" / "fd" / "0").symlink_to("/dev/pts/0")
    assert main_process(proc) == 7
    (warning,) = hazards(RUN, proc)
    assert "docker exec" in warning
    (proc / "7" / "comm").write_text("sleep\n")
    assert hazards(RUN, proc) == []


@pytest.mark.parametrize(
    ("answer", "kills"),
    [
        ('b true\nas 1 "root"\n', True), ('b true\nas 2 "root" "me"\n', False), ("b false\nas 0\n", False),
        ("b true\n", True), ("", False),
    ],
)  # fmt: skip
def test_logind_may_exclude_a_user(monkeypatch: pytest.MonkeyPatch, answer: str, kills: bool) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "me")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: SimpleNamespace(stdout=answer.encode()))
    assert logind_kills_processes() is kills


def test_a_system_without_proc_has_no_known_hazards(tmp_path: Path) -> None:
    assert hazards(RUN, tmp_path / "nothing", lambda: True) == []
