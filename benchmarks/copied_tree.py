"""Copies of the working tree in which faults are planted and tests run."""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from py_compile import PycInvalidationMode

from benchmarks.reached_lines import CHOSEN, RECORD


class Tree:
    """A copy of the working tree in which one fault at a time is planted."""

    def __init__(self, path: Path, clean: Path | None = None) -> None:
        """Copy `clean`, or the working tree (files that git does not ignore) unless a copy of it exists already."""
        self.path = path
        if clean is not None:
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(clean, path)
        elif not path.exists():
            _copy_working_tree(path)

    def pytest(self, arguments: Sequence[str], *, timeout_s: float | None, **variables: str) -> int | None:
        """Run pytest in the copy with additional environment variables; its exit status, None after the timeout."""
        environment = os.environ | {"PYTHONPATH": str(self.path), "OMP_NUM_THREADS": "1"}
        with tempfile.TemporaryDirectory(prefix="r18-", ignore_cleanup_errors=True) as temporary:
            # Rewriting assertions takes longer than most tests.
            command = [sys.executable, "-m", "pytest", "-q", "--assert=plain", "-p", "no:cacheprovider"]
            process = subprocess.Popen(
                [*command, "-p", "benchmarks.reached_lines", f"--basetemp={temporary}/t", *arguments],
                cwd=self.path, env=environment | variables, start_new_session=True, stdin=subprocess.DEVNULL,
                stdout=None if RECORD in variables else subprocess.DEVNULL, stderr=subprocess.STDOUT,
            )  # fmt: skip
            try:
                return process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                return None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # with processes that its tests left running
                process.wait()

    @contextlib.contextmanager
    def planted(self, module: str, source: str) -> Iterator[None]:
        """Replace the source of a module within the context."""
        path = self.path / path_of(module)
        before = path.read_text()
        path.write_text(source)
        try:
            yield
        finally:
            path.write_text(before)

    def first_failure(self, limits: dict[str, float], timeout_s: float) -> tuple[str, str, int]:
        """Run tests until one fails: `noticed`, `timed out` or `NOT NOTICED`, the test that failed, and how many began.

        Args:
            limits: Seconds for each test.
            timeout_s: Seconds for all tests.
        """
        chosen = self.path.with_suffix(".json")
        chosen.write_text(json.dumps(limits))
        log = chosen.with_suffix(".log")
        log.write_text("")
        files = list(dict.fromkeys(name.partition("::")[0] for name in limits))
        code = self.pytest(["-x", "-n", "0", "--tb=short", *files], timeout_s=timeout_s, **{CHOSEN: str(chosen)})
        entries = [json.loads(line) for line in log.read_text().splitlines()]
        begun = {test: when for what, test, when in entries if what == "begin"}
        for what, test, _ in entries:
            if what != "begin":
                return what, test, len(begun)
        last, when = list(begun.items())[-1] if begun else ("the start of pytest", 0.0)
        if code in (0, 5) or (code is None and time.time() - when < limits.get(last, 0.0)):
            return "NOT NOTICED", "", len(begun)
        return "timed out" if code is None else "noticed", last, len(begun)  # a hang or a crash of the process itself


def _copy_working_tree(path: Path) -> None:
    listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard", "-z"], text=True)  # noqa: S607
    partial = path.with_name(f"{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name in filter(os.path.isfile, listed.split("\0")):
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(name, partial / name)
    # Bytecode that is checked by the hash of the source: a fault may leave a file's size and time unchanged.
    compileall.compile_dir(partial, quiet=1, invalidation_mode=PycInvalidationMode.CHECKED_HASH)
    partial.rename(path)


def path_of(module: str) -> str:
    """The file of a module, relative to the repository."""
    return f"{module.replace('.', '/')}.py"
