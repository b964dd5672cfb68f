"""Measures the speed of an exported file on this machine."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np

from trainer.export.onnx_file import open_session

SECONDS = 1.5  # duration of each measurement
_FEWEST = 5
_BATCH = 32


def speed_of(path: Path, side: int) -> dict[str, float]:
    """Median `latency_ms` of one image and best `images_per_s` in batches, on the CPU with onnxruntime's threads."""
    session = open_session(path)
    model_input = session.get_inputs()[0]
    pixels = model_input.type == "tensor(uint8)"

    def seconds(count: int) -> list[float]:
        shape = (count, side, side, 3) if pixels else (count, 3, side, side)
        feed = {model_input.name: np.zeros(shape, np.uint8 if pixels else np.float32)}
        session.run(None, feed)  # the first run allocates
        found: list[float] = []
        end = time.perf_counter() + SECONDS
        while time.perf_counter() < end or len(found) < _FEWEST:
            begun = time.perf_counter()
            session.run(None, feed)
            found.append(time.perf_counter() - begun)
        return found

    return {
        "latency_ms": round(statistics.median(seconds(1)) * 1e3, 2),
        "images_per_s": round(_BATCH / min(seconds(_BATCH)), 1),
    }
