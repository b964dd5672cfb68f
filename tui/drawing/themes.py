"""The colours of the dashboard: dark, light, and the terminal's own sixteen."""

from __future__ import annotations

import os
from functools import lru_cache

from rich.style import Style
from textual.color import Color
from textual.theme import Theme

STYLES: dict[str, tuple[str, bool]] = {
    "text": ("foreground", False), "title": ("foreground", True), "dim": ("r18-dim", False), "faint": ("r18-faint", False),
    "border": ("r18-faint", False), "accent": ("r18-accent", True), "key": ("r18-accent", True), "train": ("r18-train", False),
    "raw": ("r18-raw", False), "test": ("r18-test", False), "good": ("r18-good", False), "warn": ("r18-warn", False),
    "bad": ("r18-bad", True),
}  # fmt: skip
"""Theme variable and boldness of colour words. Train and test keep theirs in every pane, amber warns, red is a fault."""

_HEAT = {
    "own": ("r18-test", 0.35, "test"), "heat1": ("r18-bad", 0.08, "dim"), "heat2": ("r18-bad", 0.22, "text"),
    "heat3": ("r18-bad", 0.42, "warn"), "heat4": ("r18-bad", 0.65, "bad"),
}  # fmt: skip
"""Words for cells of a heat map: the colour mixed into the background, its share, and the word where none can be mixed."""

DARK = {
    "r18-train": "#5fb3f9", "r18-raw": "#33546f", "r18-test": "#f2a65a", "r18-good": "#7fd88f", "r18-warn": "#f5c25b",
    "r18-bad": "#ff6b6b", "r18-accent": "#b99cff", "r18-dim": "#8b93a1", "r18-faint": "#454c59",
}  # fmt: skip
LIGHT = {
    "r18-train": "#005fb8", "r18-raw": "#a9c4de", "r18-test": "#a84f00", "r18-good": "#1a7f37", "r18-warn": "#8a5a00",
    "r18-bad": "#c62828", "r18-accent": "#6639ba", "r18-dim": "#5b6470", "r18-faint": "#c3c9d1",
}  # fmt: skip
ANSI = {
    "r18-train": "ansi_bright_blue", "r18-raw": "ansi_blue", "r18-test": "ansi_yellow", "r18-good": "ansi_green",
    "r18-warn": "ansi_bright_yellow", "r18-bad": "ansi_bright_red", "r18-accent": "ansi_bright_magenta",
    "r18-dim": "ansi_white", "r18-faint": "ansi_bright_black",
}  # fmt: skip

THEMES = (
    Theme(
        "r18-dark", primary=DARK["r18-train"], background="#11141a", foreground="#d7dce4", surface="#171b22", panel="#1d222b",
        dark=True, variables=DARK,
    ),
    Theme(
        "r18-light", primary=LIGHT["r18-train"], background="#ffffff", foreground="#1f2328", surface="#f6f8fa", panel="#eef1f4",
        dark=False, variables=LIGHT,
    ),
)  # fmt: skip


def colours_beside(theme: Theme) -> dict[str, str]:
    """The program's colours for a theme that is not its own."""
    return ANSI if theme.ansi else DARK if theme.dark else LIGHT


def palette(variables: dict[str, str]) -> dict[str, Style]:
    """Styles of the words of `STYLES` under a theme, for all panes: as component classes, every pane would compute them."""
    background, foreground = Color.parse(variables["background"]), Color.parse(variables["foreground"])
    faint = ("r18-dim", "r18-faint") if no_color() else ()
    styles = {
        word: Style(
            color=Color.parse(variables[name]).rich_color,
            bgcolor=background.rich_color,
            bold=bold or None,
            dim=name in faint or None,
        )
        for word, (name, bold) in STYLES.items()
    }
    if no_color() or background.ansi is not None:
        return styles | {word: styles[other] for word, (_, _, other) in _HEAT.items()}
    mixed = {word: background.blend(Color.parse(variables[name]), share) for word, (name, share, _) in _HEAT.items()}
    heat = {word: Style(color=foreground.rich_color, bgcolor=colour.rich_color) for word, colour in mixed.items()}
    return styles | heat


def pixel_pair(above: tuple[int, ...], below: tuple[int, ...]) -> str:
    """The style word of a cell with two pixels, one above the other, each red, green and blue from 0 to 255."""
    return "#" + "".join(f"{value:02x}" for value in (*above, *below))


@lru_cache(8192)
def pixel_style(word: str) -> Style:
    """The style of a word of `pixel_pair`, for an upper half block."""
    return Style(color=f"#{word[1:7]}", bgcolor=f"#{word[7:]}")


def no_color() -> bool:
    """Whether the user disabled colours. Source: https://no-color.org, as Textual reads it."""
    return "NO_COLOR" in os.environ


def theme_for(setting: str) -> str:
    """Name of the theme for `ui.theme`; `auto` takes the terminal's own colours where it has only sixteen."""
    if setting == "auto":
        few = os.environ.get("TERM", "") in ("linux", "xterm", "screen", "vt100", "ansi")
        setting = "ansi" if (few and not os.environ.get("COLORTERM")) or no_color() else "dark"
    return {"dark": "r18-dark", "light": "r18-light", "ansi": "ansi-dark"}[setting]
