"""Draw the README's screenshot: the dashboard of a real run at a given step, without a terminal.

r18-tui digits && python scripts/screenshot.py runs/digits docs/dashboard.svg [--at STEP] [--size 120x40] [--keys 5]
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from trainer.run.control.commands import CommandQueue
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.codec import encode
from trainer.run.log.reader import read_records
from trainer.run.log.result_events import Steps
from tui.app.app import DashboardApp
from tui.state.run_port import RunPort
from tui.state.ui_settings import UiSettings


class Excerpt:
    """A source of the lines of a log up to a step."""

    def __init__(self, run_dir: RunDir, last_step: int) -> None:
        self.lines: list[bytes] = []
        self.end = 0.0
        for record in read_records(run_dir.events):
            if isinstance(record.event, Steps) and record.event.first_step > last_step:
                break
            self.lines.append(encode(record))
            self.end = record.time

    def read(self) -> list[bytes]:
        """All lines at the first call, none later."""
        lines, self.lines = self.lines, []
        return lines


async def draw(
    run_dir: RunDir, target: Path, last_step: int, size: tuple[int, int], theme: str, keys: list[str]
) -> None:
    """Write the screenshot as SVG."""
    excerpt = Excerpt(run_dir, last_step)
    port = RunPort(run_dir=run_dir, source=excerpt, control=CommandQueue())
    ui = UiSettings(theme=theme, redraw_hz=10.0)
    app = DashboardApp(port, ui, clock=lambda: excerpt.end + 0.2)
    async with app.run_test(size=size) as pilot:
        await pilot.pause(2.0)
        await pilot.press(*keys)
        await pilot.pause(1.0 if keys else 0.0)
        target.write_text(app.export_screenshot(title="r18-tui"), encoding="utf-8")


def main() -> None:
    """Parse and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--at", type=int, default=10**9, help="last step to show")
    parser.add_argument("--size", default="120x40")
    parser.add_argument("--theme", default="dark")
    parser.add_argument(
        "--keys", nargs="*", default=[], help="keys to press first, for example 5 for the page of classes"
    )
    arguments = parser.parse_args()
    columns, rows = (int(part) for part in arguments.size.split("x"))
    asyncio.run(
        draw(RunDir(arguments.run), arguments.target, arguments.at, (columns, rows), arguments.theme, arguments.keys)
    )


if __name__ == "__main__":
    main()
