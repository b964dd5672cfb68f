"""Imports of each start, checked in a fresh interpreter: import-linter does not see imports inside functions."""

from __future__ import annotations

import subprocess
import sys

import pytest

TORCH_FREE = [
    "trainer",
    "trainer.config.loader",
    "trainer.session.training_thread",
    "trainer.run.view.run_view",
    "trainer.cli",
    "trainer.session.headless",
    "trainer.host.gpu",
    "tui",
    "tui.cli",
]
HEAVY = ("torch", "torchvision", "numpy", "onnx", "plotext")


def loaded(code: str) -> set[str]:
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(result.stdout.split())


@pytest.mark.parametrize("module", TORCH_FREE)
def test_importing_a_torch_free_module_loads_nothing_heavy(module: str) -> None:
    assert not {name for name in HEAVY if name in loaded(f"import {module}")}


def test_the_first_frame_loads_only_what_it_needs() -> None:
    names = loaded("import tui.app.app, tui.app.show_in_terminal, trainer.session.request")
    assert "textual.app" in names
    assert not {"torch", "torchvision", "numpy", "plotext", "pydantic", "yaml"} & names


def test_the_headless_command_loads_no_dashboard() -> None:
    names = loaded("import trainer.cli, trainer.session.session, trainer.commands.export")
    assert "torch" in names
    assert not {name for name in names if name.split(".")[0] in ("tui", "textual", "rich", "plotext")}


@pytest.mark.parametrize("arguments", [["--help"], ["show", "--help"], ["export", "--help"], []])
def test_torch_free_commands_stay_torch_free(arguments: list[str]) -> None:
    names = loaded(f"import tui.cli\ntry:\n    tui.cli.main({arguments!r})\nexcept SystemExit:\n    pass")
    assert "torch" not in names
    assert "textual" not in names
