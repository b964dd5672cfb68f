"""Time and memory that a run needs to check a folder of image files and to decode it into memory.

    python -m benchmarks.image_folder FOLDER [--size 32] [--again]

FOLDER is laid out for training. The program's own cache of checked folders is not used; with `--again` the folder is checked
before the measurement, as at a second start. The longest time without progress is printed, since it looks like a hang.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import torch

from trainer.data.folder.decoder import Decoder
from trainer.data.folder.survey import survey_folder
from trainer.data.image_folder import PixelStorage, load_image_folder


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--again", action="store_true", help="measure a second start")
    arguments = parser.parse_args()
    torch.zeros(1)  # memory of PyTorch itself is not counted
    with tempfile.TemporaryDirectory() as caches:
        os.environ["XDG_CACHE_HOME"] = caches
        if arguments.again:
            survey_folder(arguments.folder, lambda *_: None)
        peak = _Peak()
        signs: list[float] = [time.monotonic()]
        begun = time.monotonic()
        data = load_image_folder(
            arguments.folder,
            decoder=Decoder(image_size=arguments.size, crop_pct=1.0),
            keep=lambda _: PixelStorage.RESIDENT,
            progress=lambda *_: signs.append(time.monotonic()),
        )
        seconds = time.monotonic() - begun
    images = sum(len(split) for split in data.splits.values())
    cached = images * arguments.size**2 * 3
    grown = peak.stop()
    longest = max(after - before for before, after in zip(signs, [*signs[1:], time.monotonic()], strict=True))
    print(
        f"{images:,} images in {seconds:.1f} s ({images / seconds:,.0f} a second), {len(signs) - 1:,} signs of progress, at most "
        f"{longest:.1f} s apart"
    )
    print(
        f"memory: {grown / 2**20:.0f} MiB at most for {cached / 2**20:.0f} MiB of pixels, {grown / cached:.2f} times as much"
    )
    return 0


class _Peak:
    """Largest growth of this process's memory."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._before = self._most = self._process.memory_info().rss
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """End the measurement; the growth in bytes."""
        self._stopped.set()
        self._thread.join()
        return max(self._most, self._process.memory_info().rss) - self._before

    def _watch(self) -> None:
        while not self._stopped.wait(0.02):
            self._most = max(self._most, self._process.memory_info().rss)


if __name__ == "__main__":
    sys.exit(main())
