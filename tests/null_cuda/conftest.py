"""The stand-in, built once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.null_cuda.stand_in import UnavailableError, build

ROOT = Path(__file__).parents[2]
OnStandIn = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of processes that use the stand-in."""
    try:
        return os.environ | build(tmp_path_factory.mktemp("null_cuda"))
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def on_stand_in(stand_in: dict[str, str]) -> OnStandIn:
    """Runs a module on the stand-in and returns the JSON that it prints."""

    def run(module: str, *arguments: str) -> dict[str, Any]:
        command = [sys.executable, "-m", module, *arguments]
        done = subprocess.run(command, env=stand_in, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return run
