"""The screen in a real pseudo-terminal: without colours, and at changing sizes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pty.program import MANY_EPOCHS, code_of, start

pytestmark = pytest.mark.pty

_SGR = re.compile(rb"\x1b\[([0-9;]*)m")
_COLOURS = {*map(str, (*range(30, 39), *range(40, 49), *range(90, 98), *range(100, 108)))}


def test_no_color_removes_the_colours_of_every_screen(tmp_path: Path) -> None:
    with start(tmp_path / "runs", *MANY_EPOCHS, prefix="NO_COLOR=1") as terminal:
        terminal.wait_for(r"step [1-9]", 120)
        for key, screen in (
            ("?", "esc closes"), ("q", "Per-class"),
            ("m", "Printed by libraries"), ("m", "Per-class"),
            ("r", "in training"), ("q", "Per-class"),
            ("l", "esc cancels"), ("0.01\r", "Per-class"),
            ("\t\r", "zoom|q quit"), ("\r", "Per-class"), ("q", "Leave this run"),
        ):  # fmt: skip
            terminal.send(key)
            terminal.wait_for(screen, 15)
        terminal.send("s")
        assert code_of(terminal) == 0
        codes = _SGR.findall(bytes(terminal.raw))
        coloured = {code for code in codes if _COLOURS & set(code.decode().split(";"))}
    assert coloured == set()


def test_the_screen_is_laid_out_again_after_a_resize(tmp_path: Path) -> None:
    with start(tmp_path / "runs", *MANY_EPOCHS) as terminal:
        terminal.wait_for(r"step [1-9]", 120)
        sizes = (
            (80, 24, "cpu|quit"), (40, 12, "acc"), (20, 6, "needs 36x10"), (200, 60, "Per-class"), (120, 40, "Per-class"),
        )  # fmt: skip
        for columns, rows, part in sizes:
            terminal.resize(columns, rows)
            terminal.wait_for(part, 15)
            assert all(len(line) <= columns for line in terminal.text.splitlines())
        terminal.send("q")
        terminal.wait_for("Leave this run")
        terminal.send("s")
        assert code_of(terminal) == 0
