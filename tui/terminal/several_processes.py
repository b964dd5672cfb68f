"""`--nproc N`: N processes under torchrun, in a session without this terminal, which attaches as `r18-tui attach` would."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from trainer.errors import ConfigError
from trainer.host.limits import usable_cpus
from trainer.host.safe_text import printable
from trainer.host.self_command import own_command
from trainer.host.torchrun import LAUNCHED_BY
from trainer.run.folder.lock import read_owner
from trainer.run.folder.run_dir import RunDir, list_runs


def torchrun_command(arguments: Namespace, overrides: Sequence[str]) -> list[str]:
    """The command that starts `--nproc` processes, and restarts them when one of them dies."""
    given = [] if arguments.config is None else [arguments.config]
    if arguments.name:
        given += ["--name", arguments.name]
    if arguments.resume is not None:
        given += ["--resume", arguments.resume]
    return own_command(
        "torch.distributed.run", "--standalone", f"--nproc-per-node={arguments.nproc}", "--max-restarts=3",
        "--no-python", *own_command("trainer.cli", *given, *overrides, "--runs-dir", str(arguments.runs_dir)),
    )  # fmt: skip


def torchrun_environment(nproc: int) -> dict[str, str]:
    """The environment of these processes: they share the cores, unless the user has set otherwise."""
    return {"OMP_NUM_THREADS": str(max(1, usable_cpus() // nproc))} | os.environ


def start_several(arguments: Namespace, overrides: Sequence[str]) -> RunDir:
    """Start the processes, and wait until there is a run to show; ConfigError with their output if they end before."""
    token = secrets.token_hex(8)
    environment = torchrun_environment(arguments.nproc) | {LAUNCHED_BY: token}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            torchrun_command(arguments, overrides), stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment,
            start_new_session=True,
        )  # fmt: skip
        sys.stderr.write(f"starting {arguments.nproc} processes ...\n")
        try:
            while (run_dir := _launched_by(token, arguments.runs_dir)) is None:
                if process.poll() is not None:
                    output.seek(0)
                    text = printable(output.read().decode(errors="replace"), keep="\n").strip()
                    raise ConfigError(f"the {arguments.nproc} processes ended before there was a run:\n{text}")
                time.sleep(0.1)
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise
    return run_dir


def become_torchrun(arguments: Namespace, overrides: Sequence[str]) -> NoReturn:
    """Train without a screen: this process becomes torchrun itself."""
    command = torchrun_command(arguments, overrides)
    os.execve(command[0], command, torchrun_environment(arguments.nproc))  # noqa: S606 - our own interpreter


def _launched_by(token: str, runs_dir: Path) -> RunDir | None:
    runs = list_runs(runs_dir)
    return next((run for run in runs if (read_owner(run) or {}).get("launched_by") == token), None)
