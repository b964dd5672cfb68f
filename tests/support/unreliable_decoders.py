"""Decoders that kill or block their process. A decoding worker imports this module, so it imports no more than they need."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.data.folder.decoder import Decoder


@dataclass(frozen=True, kw_only=True)
class DeadlyDecoder(Decoder):
    """Kills the process that decodes a certain file, the first `times` times."""

    name: str
    times: int
    how: int
    tally: Path

    def __call__(self, path: str | Path) -> NDArray[np.uint8]:
        if str(path).endswith(self.name) and len(list(self.tally.iterdir())) < self.times:
            (self.tally / str(os.getpid())).touch()
            os.kill(os.getpid(), self.how)
        return super().__call__(path)


@dataclass(frozen=True, kw_only=True)
class BlockingDecoder(Decoder):
    """Blocks while a file exists, like a network share that does not respond."""

    block_file: Path

    def __call__(self, path: str | Path) -> NDArray[np.uint8]:
        while self.block_file.exists():
            time.sleep(0.01)
        return super().__call__(path)
