"""Pictures in the terminal's own pixels, where it knows sixel or kitty's protocol and textual-image is installed."""

from __future__ import annotations

import fcntl
import importlib
import importlib.util
import struct
import sys
import termios
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING

from textual.widget import Widget

if TYPE_CHECKING:
    from PIL.Image import Image

BLOCKS, SIXEL, KITTY = "blocks", "sixel", "kitty"
VARIABLE = "R18_TUI_PICTURES"
"""Says how pictures are drawn: `sixel`, `kitty` or `blocks`."""

_SIXEL = ("foot", "mlterm", "contour")
_SIXEL_PROGRAMS = ("WezTerm", "iTerm.app", "mintty")


def protocol_for(environment: Mapping[str, str], *, all_colours: bool) -> str:
    """How the terminal shows pictures: `sixel`, `kitty`, or `blocks` where nothing better is known of it.

    It is not asked. That would hold up the first frame, and over a slow link the answer would come among the keys. Kitty's
    protocol is never guessed: kitty before 0.28, which calls itself the same, shows boxes for the places of pictures.

    Args:
        environment: Of the process.
        all_colours: Whether 24 bits of a colour reach the terminal, by which kitty is told which picture a cell belongs to.
    """
    wanted = environment.get(VARIABLE, "")
    if wanted not in (SIXEL, KITTY):
        wanted = BLOCKS if wanted else _known(environment)
    if wanted == KITTY and not all_colours:
        return BLOCKS
    return wanted if wanted == BLOCKS or importlib.util.find_spec("textual_image") else BLOCKS


def _known(environment: Mapping[str, str]) -> str:
    term = environment.get("TERM", "")
    if "TMUX" in environment or "STY" in environment or term.startswith(("tmux", "screen")):
        return BLOCKS  # neither tmux nor screen passes them on unless it was built and told to
    program = environment.get("TERM_PROGRAM") or environment.get("LC_TERMINAL", "").replace("iTerm2", "iTerm.app")
    return SIXEL if term.partition("-")[0] in _SIXEL or program in _SIXEL_PROGRAMS else BLOCKS


def cell_size() -> tuple[int, int] | None:
    """Width and height of the terminal's cells in pixels; None where it does not tell."""
    if sys.__stdout__ is None:
        return None
    try:
        told = fcntl.ioctl(sys.__stdout__.fileno(), termios.TIOCGWINSZ, bytes(8))
    except (OSError, ValueError):
        return None
    rows, columns, width, height = struct.unpack("HHHH", told)
    return (width // columns, height // rows) if rows and columns and width >= columns and height >= rows else None


def picture_widget(protocol: str, image: Image, cell: tuple[int, int]) -> Widget:
    """A widget that shows a picture as large as it is made.

    Args:
        protocol: `sixel` or `kitty`.
        image: To show; kitty knows places for at most 297 columns and rows of cells.
        cell: Width and height of the terminal's cells in pixels, which the library would find out but once.
    """
    widgets = _textual_image()
    terminal = importlib.import_module("textual_image._terminal")
    terminal.get_cell_size._result = terminal.CellSize(*cell)
    made: Widget = (widgets.SixelImage if protocol == SIXEL else widgets.TGPImage)(image)
    return made


def _textual_image() -> ModuleType:
    """The library, which asks the terminal what it can do as soon as it is imported, unless it sees none.

    By now another thread reads the terminal, and would take the answer for keys.
    """
    if "textual_image.renderable" not in sys.modules:
        terminal = sys.__stdout__
        sys.__stdout__ = None  # type: ignore[misc]
        try:
            importlib.import_module("textual_image.renderable")
        finally:
            sys.__stdout__ = terminal  # type: ignore[misc]
    return importlib.import_module("textual_image.widget")
