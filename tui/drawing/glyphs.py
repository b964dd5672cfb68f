"""Characters for drawing the screen: Unicode where the terminal can show it, ASCII elsewhere."""

from __future__ import annotations

import locale
import os
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Glyphs:
    """One set of characters."""

    corners: str  # top left, top right, bottom left, bottom right
    horizontal: str
    vertical: str
    axis: str
    axis_corner: str
    axis_tick: str
    bar: str
    partial: str  # last cell of a bar, from one eighth to seven eighths
    bar_rest: str
    braille: bool  # whether curves may use braille cells
    point: str
    best: str
    now: str
    mark: str
    not_a_number: str
    above: str
    up: str
    down: str
    dot: str
    warning: str
    progress: str
    progress_rest: str
    ticks: str  # levels of a sparkline, lowest first
    shades: str  # from empty to full


UNICODE = Glyphs(
    corners="╭╮╰╯", horizontal="─", vertical="│", axis="┤", axis_corner="└", axis_tick="┬", bar="█", partial="▏▎▍▌▋▊▉",
    bar_rest="░", braille=True, point="○", best="◉", now="●", mark="▴", not_a_number="×", above="↑", up="▴", down="▾",
    dot="●", warning="▲", progress="━", progress_rest="─", ticks="▁▂▃▄▅▆▇█", shades=" ░▒▓█",
)  # fmt: skip

ASCII = Glyphs(
    corners="++++", horizontal="-", vertical="|", axis="|", axis_corner="+", axis_tick="+", bar="#", partial="",
    bar_rest=".", braille=False, point="o", best="@", now="O", mark="^", not_a_number="x", above="!", up="^", down="v",
    dot="*", warning="!", progress="=", progress_rest="-", ticks="_.-=*#", shades=" .:+#",
)  # fmt: skip


def choose_glyphs() -> Glyphs:
    """Choose ASCII for the Linux console (its font has no braille) and for locales that are not UTF-8."""
    encoding = locale.getpreferredencoding(False).lower().replace("-", "")
    return UNICODE if encoding == "utf8" and os.environ.get("TERM") != "linux" else ASCII
