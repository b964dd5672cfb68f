"""Programs without standard streams, and programs whose reader exits."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = str(Path(__file__).parents[3])


def shell(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command, in which `$PYTHON` is this interpreter and `$0`, `$1` are the arguments."""
    return subprocess.run(
        [shutil.which("bash") or "sh", "-c", command, *arguments], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": ROOT, "PYTHON": sys.executable},
    )  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_descriptors_are_opened_on_dev_null(tmp_path: Path, closed: tuple[int, ...]) -> None:
    code = (
        "import os, sys\n"
        "from trainer.host.standard_streams import open_standard_streams\n"
        "open_standard_streams()\n"
        "print('out'); print('err', file=sys.stderr); assert sys.stdin.read() == ''\n"
        "assert None not in (sys.__stdin__, sys.__stdout__, sys.__stderr__)\n"
        "open(sys.argv[1], 'w').write(' '.join(os.readlink(f'/proc/self/fd/{n}') for n in range(3)))\n"
    )
    answer = tmp_path / "answer"
    closing = " ".join(("<&-", ">&-", "2>&-")[number] for number in closed)
    assert shell(f'"$PYTHON" -c "$0" "$1" </dev/null {closing}', code, str(answer)).returncode == 0
    opened = answer.read_text().split()
    assert {opened[number] for number in closed} == {os.devnull}


@pytest.mark.parametrize("module", ["trainer", "tui.cli"])
def test_commands_work_without_standard_streams(tmp_path: Path, module: str) -> None:
    assert shell(f'"$PYTHON" -m {module} --help <&- >&-').returncode == 0
    missing = shell(f'"$PYTHON" -m {module} "$0" <&- >&- 2>&-', str(tmp_path / "missing.yaml"))
    assert missing.returncode == 2


@pytest.mark.parametrize("command", ["runs --plain", "show run --plain", ""])
def test_an_exiting_reader_is_not_a_failure(tmp_path: Path, command: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "events.jsonl").touch()
    runs_dir = '--runs-dir "$0"'
    result = shell(
        f'sleep 1 | "$PYTHON" -m tui.cli {command} {runs_dir} | true; echo ${{PIPESTATUS[1]}}', str(tmp_path)
    )
    assert (result.stdout, result.stderr) in (("141\n", ""), ("0\n", "")), (
        "it may have written before the reader exited"
    )


def test_output_on_a_full_disk_is_explained(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    result = shell('"$PYTHON" -m tui.cli runs --plain --runs-dir "$0" >/dev/full', str(tmp_path))
    assert result.returncode == 75
    assert result.stderr.strip() == "standard output: cannot be written: No space left on device"
