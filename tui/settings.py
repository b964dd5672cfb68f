"""How the screen shall be, as the dashboard takes it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UiSettings:
    """The `ui` group of the configuration, without what validates it; `trainer.config.UiConfig` documents the keys."""

    theme: str = "auto"
    redraw_hz: float = 2.0
    mouse: bool = True
    bell: bool = True
