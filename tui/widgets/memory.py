"""Memory of the training device: torch's allocator and the driver's view on a GPU, process and system on a CPU."""

from __future__ import annotations

from dataclasses import replace

from trainer.run.diagnosis.memory_forecast import memory_forecast, memory_left
from tui.drawing import format as fmt
from tui.drawing.canvas import Canvas, Row, bar
from tui.state.display_state import DisplayState
from tui.widgets.step_pane import StepPane, step_plot

_LABEL = 10
_ROOM_FOR_CURVE = 14  # minimum rows of the pane for a curve of memory over the run
_BARS = {
    "allocated": ("allocated_bytes", "train"), "reserved": ("reserved_bytes", "accent"), "peak": ("peak_bytes", "dim"),
    "device": ("device_used_bytes", "test"), "process": ("process_bytes", "train"), "system": ("system_used_bytes", "test"),
}  # fmt: skip
"""Reading and style of each bar; on a GPU without the last two."""


class MemoryPane(StepPane):
    """Bars with numbers in GiB; if alone on the screen, also a curve over the run."""

    page = "memory"

    def rows_for(self, scene: DisplayState, width: int, height: int) -> list[Row]:
        readings = scene.view.readings
        title = "GPU memory" if "allocated_bytes" in readings else "Memory"
        inner = width - 4
        if not readings:
            text = "first reading after 2 s" if scene.view.started else "appears when training starts"
            return self.notice(scene, title, text, width, height)
        labels = [label for label in _BARS if "allocated_bytes" not in readings or label not in ("process", "system")]
        body = [_bar_row(scene, label, inner) for label in labels if _BARS[label][0] in readings]
        if line := facts(scene):
            body.append([(line, "dim")])
        if height >= _ROOM_FOR_CURVE and len(scene.view.memory):
            body += [[], *_curve(scene, inner, height - 3 - len(body))]
        return self.frame(scene.glyphs, title, memory_figures(scene), body, width, height)


def _curve(scene: DisplayState, width: int, height: int) -> list[Row]:
    from tui.drawing.plot import draw_cursor, draw_line, nice_range

    canvas = Canvas(width, height - 1, braille=scene.glyphs.braille)
    left, right = scene.viewport.edges(scene.total)
    memory = scene.pyramid("memory")
    extent = memory.extent(left, right) or (0.0, 1.0)
    low, high = nice_range(0.0, extent[1] / 2**30)
    area, frame = step_plot(canvas, scene, low, high)
    in_bytes = replace(frame, low=low * 2**30, high=high * 2**30)  # the curve is in bytes, the labels are in GiB
    draw_line(canvas, area, in_bytes, memory, "train")
    draw_cursor(canvas, area, in_bytes, scene.glyphs, scene.viewport.cursor)
    return [_outlook(scene), *canvas.rows()]


def _outlook(scene: DisplayState) -> Row:
    """Quantity shown by the curve, and whether memory lasts to the end of the run."""
    view, left = scene.view, memory_left(scene.view)
    what = "device" if "device_used_bytes" in view.readings else "process"
    row: Row = [(f"{what}, GiB", "train")]
    if left is not None:
        row.append((f"   {fmt.gib(left)} GiB are free", "dim"))
    forecast = memory_forecast(view)
    if forecast is not None:
        row.append((f"   at this pace none at step {forecast.step:,.0f}", "warn"))
    return row


def memory_figures(scene: DisplayState) -> Row:
    """Used and total memory, in GiB."""
    readings = scene.view.readings
    used = readings.get("device_used_bytes", readings.get("reserved_bytes", readings.get("process_bytes")))
    return [(f"{fmt.gib(used)} of {fmt.gib(_total(readings))} GiB", "text")] if readings else []


def facts(scene: DisplayState) -> str:
    """Utilisation, temperature and power of a GPU, load of a CPU, as far as they can be read; none while the run is at rest."""
    texts = {"utilization_pct": "util {:.0f} %", "temperature_c": "{:.0f} °C", "power_w": "{:.0f} W"}
    readings = {} if scene.at_rest else scene.view.readings
    parts = [text.format(readings[key]) for key, text in texts.items() if key in readings]
    if not parts and "cpu_pct" in readings:
        parts = [f"CPU {readings['cpu_pct']:.0f} %"]
    return "   ".join(parts)


def _total(readings: dict[str, float]) -> float | None:
    return readings.get("device_total_bytes", readings.get("system_total_bytes"))


def _bar_row(scene: DisplayState, label: str, width: int) -> Row:
    readings, (key, style) = scene.view.readings, _BARS[label]
    used_bytes, total = readings[key], _total(readings)
    share = used_bytes / total if total else 0.0
    style = "warn" if share > 0.92 and label in ("device", "system", "reserved") else style
    return [
        (fmt.fit(label, _LABEL), "dim"),
        *bar(share, max(width - _LABEL - 7, 4), scene.glyphs, style),
        (f" {fmt.gib(used_bytes):>6}", "text"),
    ]
