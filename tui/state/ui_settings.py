"""Display settings, in the form that the dashboard takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UiSettings:
    """The `ui` group of the configuration, without its validation; `trainer.config.schema.UiConfig` documents the keys."""

    theme: str = "auto"
    redraw_hz: float = 2.0
    low_bandwidth: bool = False
    mouse: bool = True
    bell: bool = True

    @property
    def redraw_every_s(self) -> float:
        """Least number of seconds between two drawings of a pane."""
        return max(1.0 / self.redraw_hz, 4.0 if self.low_bandwidth else 0.0)
