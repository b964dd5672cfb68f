"""The trainer's draws for one image, as plain numbers."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

from trainer.data.draws import EpochDraws, Stream, draw

MOST = 128  # largest number of images in an epoch


@dataclass(frozen=True)
class Draws:
    """The draws of one image of an epoch."""

    seed: int
    epoch: int
    position: int

    def whole(self, stream: Stream) -> int:
        """A whole number from 0 to 2**53 - 1."""
        return _whole_numbers(self.seed, self.epoch, stream)[self.position]

    def uniform(self, stream: Stream) -> float:
        """A number from 0 to 1."""
        return _uniform_numbers(self.seed, self.epoch, stream)[self.position]


@functools.cache
def _whole_numbers(seed: int, epoch: int, stream: Stream) -> list[int]:
    numbers: list[int] = draw(torch.arange(MOST), seed=seed, epoch=epoch, stream=stream).tolist()
    return numbers


@functools.cache
def _uniform_numbers(seed: int, epoch: int, stream: Stream) -> list[float]:
    numbers: list[float] = EpochDraws(seed, epoch=epoch).uniform(torch.arange(MOST), stream).tolist()
    return numbers
