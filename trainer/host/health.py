"""One thing that `doctor` looked at. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What.
        state: `good`, `careful`, or `bad`, with which a run cannot start.
        found: What there is.
        remedy: What to do; empty when it is good.
    """

    name: str
    state: str
    found: str
    remedy: str = ""
