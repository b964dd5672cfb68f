"""`find-lr` in a terminal: one key saves the suggestion."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import TINY
from tests.pty.program import PROGRAM, code_of, in_shell
from trainer.config.loader import load_config

pytestmark = pytest.mark.pty

SMALL = ("train.epochs=1", "data.batch_size=16", *TINY)


@pytest.mark.parametrize(("key", "taken"), [("w", True), ("n", False)])
def test_one_key_writes_the_suggestion_into_the_configuration(tmp_path: Path, key: str, taken: bool) -> None:
    file = tmp_path / "mine.yaml"
    before = "run:\n  name: mine\ndata:\n  kind: digits\noptim:\n  lr: 0.123  # a guess\n"
    file.write_text(before)
    with in_shell([*PROGRAM, "find-lr", str(file), *SMALL], tmp_path) as terminal:
        terminal.wait_for(r"w +write optim\.lr", 120)
        terminal.send(key)
        assert code_of(terminal) == 0
        written = re.sub(r"\s", "", terminal.text.partition("saved; train with: ")[2])
        assert written.startswith(f"r18-tui{file}{''.join(SMALL)}") is taken, (
            "the overrides of the search belong to the command"
        )
    assert (file.read_text() != before) is taken
    assert (load_config(str(file)).config.optim.lr != 0.123) is taken
    assert "# a guess" in file.read_text()
