"""Hazards that would end a run in the background, each with its remedy.

A machine may end its users' processes when they log out, and a container ends with its first process.
"""

from __future__ import annotations

import getpass
import subprocess
from collections.abc import Callable
from pathlib import Path

from trainer.run.folder.run_dir import RunDir
from tui.terminal.container import main_process, read

_SHELLS = frozenset({"ash", "bash", "dash", "fish", "ksh", "sh", "zsh"})
_ASK_LOGIND = (
    "busctl", "get-property", "org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager",
    "KillUserProcesses", "KillExcludeUsers",
)  # fmt: skip
_PATIENCE_S = 1.0


def logind_kills_processes() -> bool:
    """Whether systemd kills the processes that a session of this user leaves behind (`KillUserProcesses` of logind.conf)."""
    try:
        answer = subprocess.run(_ASK_LOGIND, capture_output=True, timeout=_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False  # no systemd, or none that answers
    kills, _, spared = answer.stdout.decode(errors="replace").partition("\n")
    return kills.strip() == "b true" and f'"{_user()}"' not in spared


def hazards(
    run_dir: RunDir, proc: Path = Path("/proc"), kills: Callable[[], bool] = logind_kills_processes
) -> list[str]:
    """Warnings for the user who leaves this process alone; `kills` is called only in a login session."""
    warnings = []
    cgroup = read(proc / "self" / "cgroup")
    if ".scope" in cgroup and "/session-" in cgroup and kills():  # in a login session
        warnings.append(
            "this machine ends your processes when you log out (KillUserProcesses of logind.conf): stay logged in, or stop the "
            f"run and resume it outside the session: loginctl enable-linger && systemd-run --user --scope "
            f"{run_dir.resume_command()} --detach"
        )
    if _shell_is_main(proc):
        warnings.append(
            "this container ends when its first shell exits: leave it without ending the shell (docker: ctrl+p ctrl+q), or start "
            "it with a command that stays (docker run -d ... sleep infinity) and enter it with docker exec"
        )
    return warnings


def _shell_is_main(proc: Path) -> bool:
    """Whether the main process is an interactive shell."""
    main = proc / str(main_process(proc))
    try:
        types_into = str((main / "fd" / "0").readlink()).startswith(("/dev/pts/", "/dev/console"))
    except OSError:
        return False
    return types_into and read(main / "comm").strip() in _SHELLS


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a number without a name, in a container
        return ""
