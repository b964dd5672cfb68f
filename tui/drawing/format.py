"""Numbers, durations and sizes as short texts of steady width. Pure."""

from __future__ import annotations

import math
from datetime import datetime

from rich.cells import cell_len, set_cell_size

from trainer.host.safe_text import printable as printable


def number(value: float | None, digits: int = 3) -> str:
    """A figure with at most `digits` decimals and four significant digits; `—` if there is none."""
    if value is None:
        return "—"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "inf"
    if abs(value) >= 1e6:
        return f"{value:.2e}"
    whole = len(str(int(abs(value))))
    return f"{value:,.{max(0, min(digits, 4 - whole))}f}"


def rate(value: float | None) -> str:
    """A learning rate: three significant digits."""
    return "—" if value is None else f"{value:.3g}"


def significant(value: float) -> str:
    """Three decimals, or a power of ten below a thousandth, so that decimal points align."""
    return number(value) if value >= 0.001 or value == 0 else f"{value:.1e}"


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction as a percentage without the sign: `83.9`."""
    return "—" if fraction is None else f"{100 * fraction:.{digits}f}"


def per_second(value: float | None) -> str:
    """Images per second, with thousands separated."""
    return "— img/s" if value is None else f"{value:,.0f} img/s"


def duration(seconds: float | None) -> str:
    """`0:21`, `12:05`, `1:02:05` or `3d 04:10`."""
    if seconds is None or not math.isfinite(seconds):
        return "—"
    whole = max(0, round(seconds))
    days, rest = divmod(whole, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, secs = divmod(rest, 60)
    if days:
        return f"{days}d {hours:02d}:{minutes:02d}"
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"


def age(seconds: float) -> str:
    """Elapsed time: `0.4 s`, `12 s`, `3:05`."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    return f"{seconds:.0f} s" if seconds < 120 else duration(seconds)


def gib(size_bytes: float | None, digits: int = 1) -> str:
    """Bytes as GiB without the unit: `11.4`."""
    return "—" if size_bytes is None else f"{size_bytes / 2**30:.{digits}f}"


def count(value: float) -> str:
    """A large number in short form: `11.2 M`, `45.0 k`, `812`."""
    if value >= 1e6:
        return f"{value / 1e6:.1f} M"
    return f"{value / 1e3:.1f} k" if value >= 1e4 else f"{value:,.0f}"


def clock(unix_s: float) -> str:
    """Local time of day."""
    return datetime.fromtimestamp(unix_s).strftime("%H:%M:%S")


def fit(text: str, width: int) -> str:
    """Text of exactly `width` cells: cut with an ellipsis or padded. Wide characters count as two."""
    if width <= 0:
        return ""
    if cell_len(text) > width:
        text = set_cell_size(text, width - 1).rstrip(" ") + "…"
    return set_cell_size(text, width)
