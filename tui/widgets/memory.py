"""Memory of the device that trains: torch's allocator and the driver's view on a GPU, process and system on a CPU."""

from __future__ import annotations

from dataclasses import dataclass

from tui import format as fmt
from tui.bars import bar
from tui.canvas import Row
from tui.scene import Scene
from tui.widgets.pane import Pane

_LABEL = 10


@dataclass(frozen=True)
class _Bar:
    label: str
    used_bytes: float
    style: str


class MemoryPane(Pane):
    """Bars with numbers in GiB."""

    page = "memory"

    def rows_for(self, scene: Scene, width: int, height: int) -> list[Row]:
        """The whole pane."""
        readings = scene.view.readings
        title = "GPU memory" if "allocated_bytes" in readings else "Memory"
        inner = width - 4
        if not readings:
            text = "first reading after 2 s" if scene.view.started else "appears when training starts"
            body: list[Row] = [[(text, "dim")]]
            return self.frame(scene.glyphs, title, [], body, width, height)
        total = _total(readings)
        body = [_bar_row(scene, entry, total, inner) for entry in _bars(readings)]
        line = facts(readings)
        if line:
            body.append([(line, "dim")])
        return self.frame(scene.glyphs, title, memory_figures(scene), body, width, height)


def memory_figures(scene: Scene) -> Row:
    """Used of total, in GiB."""
    readings = scene.view.readings
    used = readings.get("device_used_bytes", readings.get("reserved_bytes", readings.get("process_bytes")))
    return [(f"{fmt.gib(used)} of {fmt.gib(_total(readings))} GiB", "text")] if readings else []


def facts(readings: dict[str, float]) -> str:
    """Utilisation, temperature and power of a GPU, load of a CPU; what cannot be read is left out."""
    parts = []
    if "utilization_pct" in readings:
        parts.append(f"util {readings['utilization_pct']:.0f} %")
    if "temperature_c" in readings:
        parts.append(f"{readings['temperature_c']:.0f} °C")
    if "power_w" in readings:
        parts.append(f"{readings['power_w']:.0f} W")
    if not parts and "cpu_pct" in readings:
        parts.append(f"CPU {readings['cpu_pct']:.0f} %")
    return "   ".join(parts)


def _total(readings: dict[str, float]) -> float | None:
    return readings.get("device_total_bytes", readings.get("system_total_bytes"))


def _bars(readings: dict[str, float]) -> list[_Bar]:
    wanted = (
        ("allocated", "allocated_bytes", "train"),
        ("reserved", "reserved_bytes", "accent"),
        ("peak", "peak_bytes", "dim"),
        ("device", "device_used_bytes", "test"),
        ("process", "process_bytes", "train"),
        ("system", "system_used_bytes", "test"),
    )
    on_gpu = "allocated_bytes" in readings
    return [
        _Bar(label, readings[key], style)
        for label, key, style in wanted
        if key in readings and not (on_gpu and label in ("process", "system"))
    ]


def _bar_row(scene: Scene, entry: _Bar, total: float | None, width: int) -> Row:
    share = entry.used_bytes / total if total else 0.0
    style = "warn" if share > 0.92 and entry.label in ("device", "system", "reserved") else entry.style
    room = max(width - _LABEL - 7, 4)
    return [
        (fmt.fit(entry.label, _LABEL), "dim"),
        *bar(share, room, scene.glyphs, style),
        (f" {fmt.gib(entry.used_bytes):>6}", "text"),
    ]
