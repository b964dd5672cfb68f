"""The `data` group of the configuration."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import Field, field_validator, model_validator

from trainer.config.group import Auto, Fraction, Group
from trainer.config.reading_version import READING


class DataConfig(Group):
    """The images, their size and their augmentation."""

    kind: Literal["digits", "cifar10", "cifar100", "imagefolder"] = "digits"
    """`digits` is embedded; `cifar10` and `cifar100` are downloaded once; `imagefolder` reads your own images."""
    root: str = "data"
    """Folder of downloads, or for `imagefolder` the folder that holds `train/` and `test/` and/or `val/`, or class folders."""
    image_size: int = Field(32, ge=8, le=1024)
    """Height and width in pixels that the network sees."""
    progressive: list[list[int]] = Field(default_factory=list)
    """Smaller training images in the first epochs, which take less time: `[[16, 4], [24, 7]]` is 4 epochs at 16 pixels, 7 at 24;
    the rest is at image_size, and so is every evaluation."""
    val_fraction: float = Field(0.0, ge=0.0, le=0.5)
    """Share of the training images set aside for validation (stratified, by seed) where there is no `val/`. Copies of a file
    stay together."""
    test_fraction: float = Field(0.0, ge=0.0, le=0.5)
    """Share of the training images set aside for the test in the same way, where there is no `test/`."""
    batch_size: int = Field(128, ge=2, le=65536)
    """Images per optimizer step, over all micro-batches (global)."""
    drop_last: bool = True
    """Drop the last, smaller batch of an epoch."""
    workers: int | Auto = "auto"
    """Decoding processes for folders that do not fit in memory; `auto` is the number of CPUs less one, at most 8. Affinity
    and the limits of a container count."""
    cache: Literal["auto", "device", "ram", "none"] = "auto"
    """Where decoded images are kept; `auto` takes the first of device, RAM and none (streaming) that has room."""
    mean: list[float] | Auto = "auto"
    """Mean of each channel (0-1 scale). `auto`: ImageNet's with ImageNet weights, the source's with `init_from` a run or its
    export, else that of the training images."""
    std: list[float] | Auto = "auto"
    """Standard deviation of each channel (0-1 scale); `auto` as for `mean`."""
    flip: Literal["none", "random", "alternate"] = "none"
    """Horizontal flip. `alternate` flips every image in every second epoch, half of them starting flipped."""
    crop_pad: int = Field(0, ge=0, le=64)
    """Pixels of padding before the random crop; 0 turns cropping off."""
    pad: Literal["reflect", "zero"] = "reflect"
    """Content of the padding."""
    crop_pct: float = Field(0.875, gt=0.0, le=1.0)
    """`imagefolder` only: image_size over the short side after resizing; 1.0 keeps the whole short side."""
    fit: Literal["crop", "letterbox"] = "crop"
    """`imagefolder` only: `crop` cuts the ends of the long side off; `letterbox` keeps the whole picture, with grey bars beside
    it, for pictures that are much longer than wide."""
    resized_crop: float | None = Field(None, gt=0.0, le=1.0)
    """Smallest share of a training picture in a random crop that is resized to image_size; None: off. Excludes crop_pad."""
    trivial_augment: bool = False
    """One random operation of 14 per image: rotation, shear, shift, brightness, contrast and the like, of random strength."""
    cutout: int = Field(0, ge=0, le=512)
    """Side in pixels of the square that is set to the mean in each training image; 0 turns it off."""
    random_erase: Fraction = 0.0
    """Probability that a random rectangle of a training image, 2 to 33 % of it, is set to the mean."""
    mixup: float = Field(0.0, ge=0.0, le=10.0)
    """Training images are mixed with another of their batch, with a share drawn from Beta(a, a) of this a; 0: off."""
    cutmix: float = Field(0.0, ge=0.0, le=10.0)
    """A rectangle of a training image comes from another of its batch; its area share is drawn from Beta(a, a) too. With `mixup`
    each image gets one of the two."""
    balance: Literal["none", "loss", "sampler"] = "none"
    """Where classes have different numbers of images: `loss` weighs each image by how rare its class is, `sampler` shows all
    classes equally often."""
    reading: int = Field(READING, ge=1, le=READING)
    """`imagefolder` only: version of the rules by which folders and pictures are read. A run keeps its own; runs that name none
    have 1 (docs/run-directory.md)."""

    @field_validator("mean", "std")
    @classmethod
    def _three_channels(cls, value: list[float] | Auto) -> list[float] | Auto:
        if value != "auto" and len(value) != 3:
            raise ValueError("expected auto or three numbers, one per channel")
        return value

    @field_validator("std")
    @classmethod
    def _positive(cls, value: list[float] | Auto) -> list[float] | Auto:
        if value != "auto" and any(number <= 0 for number in value):
            raise ValueError("expected positive numbers")
        return value

    @field_validator("workers")
    @classmethod
    def _worker_range(cls, value: int | Auto) -> int | Auto:
        if value != "auto" and not 0 <= value <= 128:
            raise ValueError("expected auto or 0 to 128")
        return value

    @model_validator(mode="after")
    def _check_combinations(self) -> DataConfig:
        if self.val_fraction + self.test_fraction >= 0.9:
            raise ValueError(
                f"val_fraction {self.val_fraction} and test_fraction {self.test_fraction} leave too few to train on"
            )
        if any(len(pair) != 2 or pair[1] < 1 for pair in self.progressive):
            raise ValueError(
                f"progressive takes pairs of pixels and epochs, as [[16, 4], [24, 7]], found {self.progressive}"
            )
        sizes = [8, *(size for size, _ in self.progressive), self.image_size]
        if any(larger < smaller for smaller, larger in pairwise(sizes)):
            raise ValueError(f"the sizes of progressive must rise from 8 or more to image_size {self.image_size}")
        if self.resized_crop is not None and self.crop_pad:
            raise ValueError(
                f"resized_crop and crop_pad {self.crop_pad} are two ways to crop; set one of them to none and 0"
            )
        if self.pad == "reflect" and self.crop_pad >= self.image_size:
            raise ValueError(
                f"crop_pad {self.crop_pad} must be smaller than image_size {self.image_size} with pad: reflect"
            )
        return self

    @property
    def held_out_shares(self) -> dict[str, float]:
        """Shares of the training images by the split that they are for, where there is no such split."""
        return {"val": self.val_fraction, "test": self.test_fraction}

    def size_in(self, epoch: int) -> int:
        """Height and width in pixels of the training images in an epoch, from 0."""
        for size, epochs in self.progressive:
            if epoch < epochs:
                return size
            epoch -= epochs
        return self.image_size
