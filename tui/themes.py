"""The colours of the dashboard: dark, light, and the terminal's own sixteen."""

from __future__ import annotations

import os

from textual.theme import Theme

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
        name="r18-dark",
        primary=DARK["r18-train"],
        background="#11141a",
        foreground="#d7dce4",
        surface="#171b22",
        panel="#1d222b",
        dark=True,
        variables=DARK,
    ),
    Theme(
        name="r18-light",
        primary=LIGHT["r18-train"],
        background="#ffffff",
        foreground="#1f2328",
        surface="#f6f8fa",
        panel="#eef1f4",
        dark=False,
        variables=LIGHT,
    ),
)


def theme_for(setting: str) -> str:
    """The theme's name for `ui.theme`.

    Args:
        setting: `auto`, `dark`, `light` or `ansi`; `auto` takes the terminal's own colours where it has only sixteen.
    """
    if setting == "auto":
        few = os.environ.get("TERM", "") in ("linux", "xterm", "screen", "vt100", "ansi") and not os.environ.get(
            "COLORTERM"
        )
        setting = "ansi" if few else "dark"
    return {"dark": "r18-dark", "light": "r18-light", "ansi": "ansi-dark"}[setting]
