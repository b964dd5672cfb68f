"""Random draws as integer hashes of (seed, epoch, position, stream), in plain int64 tensor operations.

So a draw does not depend on micro-batch, worker or device, a resume in mid-epoch is arithmetic, and no state is kept.

Source: the finalizer and increment of splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014), chained over the key's parts.
"""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


class Stream(IntEnum):
    """Purpose of a draw. A number is never reused for another purpose: resumes depend on it."""

    ORDER = 1
    FLIP = 2
    CROP_Y = 3
    CROP_X = 4
    CUTOUT_Y = 5
    CUTOUT_X = 6
    DROPOUT = 7
    VALIDATION = 8
    CROP_AREA = 9
    CROP_ASPECT = 10
    ERASE = 11
    ERASE_AREA = 12
    ERASE_ASPECT = 13
    ERASE_Y = 14
    ERASE_X = 15
    TRIVIAL_OPERATION = 16
    TRIVIAL_STRENGTH = 17
    TRIVIAL_SIGN = 18
    MIX_KIND = 19
    MIX_SHARE = 20
    MIX_Y = 21
    MIX_X = 22
    BALANCE = 23


def draw(positions_N: Tensor, *, seed: int, epoch: int, stream: Stream) -> Tensor:
    """Hash int64 positions to uniform int64 in [0, 2**53), of the same shape and device; `epoch` counts from 0."""
    return _hashed(positions_N, _key(seed, epoch, stream))


class EpochDraws:
    """All draws of one epoch. Their keys lie on a device, where a CUDA graph that was captured in another epoch reads them."""

    def __init__(self, seed: int, device: torch.device | str = "cpu", *, epoch: int = 0) -> None:
        self.seed = seed
        self._epoch = -1
        # The epoch, and a key for each stream.
        self._keys = torch.zeros(1 + len(Stream), dtype=torch.int64, device=device)
        self.begin(epoch)

    def begin(self, epoch: int) -> None:
        """Switch to another epoch, counted from 0; does nothing within an epoch."""
        if epoch != self._epoch:
            self._epoch = epoch
            self._keys.copy_(torch.tensor([epoch, *(_key(self.seed, epoch, stream) for stream in Stream)]))

    @property
    def epoch(self) -> Tensor:
        """The epoch, int64 () on the device."""
        return self._keys[0]

    def whole(self, positions_N: Tensor, stream: Stream) -> Tensor:
        """Draw uniform int64 in [0, 2**53), as `draw` does, in this epoch."""
        return _hashed(positions_N, self._keys[stream])

    def below(self, limit: int, positions_N: Tensor, stream: Stream) -> Tensor:
        """Draw uniform integers in [0, limit)."""
        return self.whole(positions_N, stream) % limit

    def uniform(self, positions_N: Tensor, stream: Stream) -> Tensor:
        """Draw uniform float32 in [0, 1), multiples of 2**-24."""
        return (self.whole(positions_N, stream) >> 29).float() / (1 << 24)


def epoch_order(num_images: int, *, seed: int, epoch: int) -> Tensor:
    """Return a permutation of all images for an epoch: int64 (num_images,) on the CPU."""
    keys = draw(torch.arange(num_images), seed=seed, epoch=epoch, stream=Stream.ORDER)
    return torch.argsort(keys, stable=True)


def balanced_order(labels_N: Tensor, *, seed: int, epoch: int) -> Tensor:
    """Order of an epoch with all classes equally often and as many images as the split has: int64 (N,) on the CPU.

    Each class is cycled through repeatedly, in a new order each time; the counts of its images differ by at most one.
    If the number is not divisible, the classes that get one image more change from epoch to epoch.
    """
    classes = labels_N.unique()
    share, rest = divmod(len(labels_N), len(classes))
    extra = set(epoch_order(len(classes), seed=seed, epoch=epoch)[:rest].tolist())
    rows = []
    for index, label in enumerate(classes.tolist()):
        of_class = torch.nonzero(labels_N == label).flatten()
        wanted = share + (index in extra)
        passes = -(-wanted // len(of_class))
        # A separate number for each image in each pass: the same image must not always come at the same place.
        cells = of_class + len(labels_N) * torch.arange(passes)[:, None]
        keys = draw(cells, seed=seed, epoch=epoch, stream=Stream.BALANCE)
        rows.append(of_class[torch.argsort(keys, dim=1, stable=True)].flatten()[:wanted])
    chosen = torch.cat(rows)
    return chosen[epoch_order(len(chosen), seed=seed, epoch=epoch)]


def _key(seed: int, epoch: int, stream: Stream) -> int:
    key = 0
    for part in (seed, epoch, int(stream)):
        key = _mix_int((key + part) & _MASK)
    return _signed(key)


def _hashed(positions_N: Tensor, key: int | Tensor) -> Tensor:
    return _shift(_mix(positions_N * _signed(_GOLDEN) + key), 11)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * _signed(_MIX_1)
    z = (z ^ _shift(z, 27)) * _signed(_MIX_2)
    return z ^ _shift(z, 31)


def _shift(z: Tensor, bits: int) -> Tensor:
    # int64's own shift copies the sign bit; the mask makes the shift logical.
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix_int(z: int) -> int:
    z = (z + _GOLDEN) & _MASK
    z = ((z ^ (z >> 30)) * _MIX_1) & _MASK
    z = ((z ^ (z >> 27)) * _MIX_2) & _MASK
    return z ^ (z >> 31)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
