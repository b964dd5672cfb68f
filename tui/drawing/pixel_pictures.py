"""Pictures in the terminal's own pixels, if it supports sixel or kitty's protocol and textual-image is installed."""

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
VARIABLE = "R18_TUI_PICTURES"  # environment variable that sets the protocol: `sixel`, `kitty` or `blocks`

_SIXEL = ("foot", "mlterm", "contour")
_SIXEL_PROGRAMS = ("WezTerm", "iTerm.app", "mintty")


def protocol_for(environment: Mapping[str, str], *, all_colours: bool) -> str:
    """Choose the protocol for pictures: `sixel`, `kitty`, or `blocks` if nothing better is known of the terminal.

    The terminal is not queried. That would delay the first frame, and over a slow link the answer would arrive among the keys.
    Kitty's protocol is never guessed: kitty before 0.28 reports the same name and shows boxes in place of the pictures. It needs
    24-bit colours, since kitty identifies the picture of a cell by its colour.
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
        return BLOCKS  # neither tmux nor screen passes them on unless built and configured for it
    program = environment.get("TERM_PROGRAM") or environment.get("LC_TERMINAL", "").replace("iTerm2", "iTerm.app")
    return SIXEL if term.partition("-")[0] in _SIXEL or program in _SIXEL_PROGRAMS else BLOCKS


def cell_size() -> tuple[int, int] | None:
    """Width and height of the terminal's cells in pixels; None if it does not report them."""
    if sys.__stdout__ is None:
        return None
    try:
        window = fcntl.ioctl(sys.__stdout__.fileno(), termios.TIOCGWINSZ, bytes(8))
    except (OSError, ValueError):
        return None
    rows, columns, width, height = struct.unpack("HHHH", window)
    return (width // columns, height // rows) if rows and columns and width >= columns and height >= rows else None


def picture_widget(protocol: str, image: Image, cell: tuple[int, int]) -> Widget:
    """A widget that shows a picture at its own size; kitty can address at most 297 columns and rows of cells.

    `cell` is the size of the terminal's cells in pixels, which the library would determine only once.
    """
    widgets = _textual_image()
    terminal = importlib.import_module("textual_image._terminal")
    terminal.get_cell_size._result = terminal.CellSize(*cell)
    made: Widget = (widgets.SixelImage if protocol == SIXEL else widgets.TGPImage)(image)
    return made


def _textual_image() -> ModuleType:
    """Import the library while it sees no terminal: it would query one, and the thread that reads keys would get the answer."""
    if "textual_image.renderable" not in sys.modules:
        terminal = sys.__stdout__
        sys.__stdout__ = None  # type: ignore[misc]
        try:
            importlib.import_module("textual_image.renderable")
        finally:
            sys.__stdout__ = terminal  # type: ignore[misc]
    return importlib.import_module("textual_image.widget")
