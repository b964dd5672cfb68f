"""How the screen shall be, as the dashboard takes it."""

from __future__ import annotations

from dataclasses import dataclass

_SLOW_LINK_S = 4.0


@dataclass(frozen=True)
class UiSettings:
    """The `ui` group of the configuration, without what validates it; `trainer.config.schema.UiConfig` documents the keys."""

    theme: str = "auto"
    redraw_hz: float = 2.0
    low_bandwidth: bool = False
    mouse: bool = True
    bell: bool = True

    @property
    def redraw_every_s(self) -> float:
        """Seconds between two drawings of a pane, at least."""
        return max(1.0 / self.redraw_hz, _SLOW_LINK_S if self.low_bandwidth else 0.0)
