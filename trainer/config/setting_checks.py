"""Checks for settings that are valid one by one but make no sense together, at the start of a run and in `doctor`."""

from __future__ import annotations

import math
from collections.abc import Iterator

from trainer.config.schema import Config
from trainer.host.health import Check

_IMAGENET_STRIDE = 32  # image pixels per pixel of the last stage's output
_LEAST_CROP = 4.0  # side of a cut-out in pixels: a smaller one shows a colour but no shape
_LEAST_STD = 1 / 256  # just below 1/255, the step between pixel values; a std of 1/255 gives the scale 0-255
_LARGEST_SCALE = 1e4  # of the input: above it, rounding or batch norm's epsilon hides the step between pixel values
_LEAST_CROP_PCT = 0.01  # below it, the crop shows only a few pixels even of the largest photograph


def setting_checks(config: Config, num_train_images: int | None = None) -> list[Check]:
    """Check a configuration as a whole: `bad` where nothing can be learned. Without a number of images, no `step_checks`."""
    rules = (_check_scale, _check_cutout, _check_crop, _check_stem, _check_schedule, _check_limits, _check_augmentation)
    found = [check for rule in rules for check in rule(config)]
    return [*found, *(step_checks(config, num_train_images) if num_train_images else ())]


def setting_warnings(config: Config, num_train_images: int | None = None) -> list[str]:
    """Format the results of `setting_checks` for people, one per line."""
    return [f"{check.found}; {check.remedy}" for check in setting_checks(config, num_train_images)]


def _warning(found: str, remedy: str, *, state: str = "warning") -> Check:
    return Check("settings", state, found, remedy)


def _check_scale(config: Config) -> Iterator[Check]:
    """Check for mean and std that do not fit pixels from 0 to 1, and for a crop of a small part of each picture."""
    data = config.data
    for key, values, low in (("mean", data.mean, 0.0), ("std", data.std, _LEAST_STD)):
        if values != "auto" and not all(low <= value <= 1 for value in values):
            lost = max(map(abs, values)) > _LARGEST_SCALE or (key == "std" and min(values) < 1 / _LARGEST_SCALE)
            yield _warning(
                f"data.{key} {values} is not on the scale of pixels from 0 to 1"
                + (", and float32 cannot tell pixels apart on it" if lost else ""),
                f"divide values of the scale 0-255 by 255, or set data.{key}=auto",
                state="bad" if lost else "warning",
            )
    if data.kind == "imagefolder" and data.fit == "crop" and data.crop_pct < 0.5:
        yield _warning(
            f"data.crop_pct {data.crop_pct:g} shows the network {data.crop_pct:.2g} of the short side of each picture",
            "set data.crop_pct to 0.875, or to 1 for the whole short side",
            state="bad" if data.crop_pct < _LEAST_CROP_PCT else "warning",
        )


def _check_cutout(config: Config) -> Iterator[Check]:
    size, side = config.data.image_size, config.data.cutout
    if side >= 2 * size - 1:
        # The square covers the whole picture, wherever its centre is.
        yield _warning(
            f"data.cutout {side} hides every pixel of every {size}-pixel training image",
            f"set data.cutout to {size // 2} or less",
            state="bad",
        )
    elif side and (hidden := _covered(size, side) ** 2) > 0.4:
        yield _warning(
            f"data.cutout {side} hides {hidden:.0%} of a {size}-pixel training image on average",
            f"set data.cutout to {size // 2} or less",
        )


def _covered(size: int, side: int) -> float:
    """Mean share of a line of `size` pixels covered by a hole of `side` pixels with a centre uniform over the line."""
    starts = [centre - side // 2 for centre in range(size)]
    return sum(min(start + side, size) - max(start, 0) for start in starts) / size**2


def _check_crop(config: Config) -> Iterator[Check]:
    data = config.data
    pad, size = data.crop_pad, data.image_size
    shifts = range(-pad, pad + 1)
    seen = (sum(max(0, size - abs(shift)) for shift in shifts) / size / len(shifts)) ** 2
    if seen < 0.5:
        yield _warning(
            f"data.crop_pad {pad} leaves {seen:.0%} of a {size}-pixel picture in a crop on average, the rest is padding",
            f"set data.crop_pad to {max(1, size // 8)}",
        )
    if data.resized_crop is not None and (least := math.sqrt(data.resized_crop) * size) < _LEAST_CROP:
        yield _warning(
            f"data.resized_crop {data.resized_crop:g} can crop to {least:.1f} of {size} pixels",
            "raise data.resized_crop or data.image_size",
        )


def _check_stem(config: Config) -> Iterator[Check]:
    smallest = min([config.data.image_size, *(size for size, _ in config.data.progressive)])
    if config.model.stem == "imagenet" and smallest < _IMAGENET_STRIDE:
        yield _warning(
            f"model.stem imagenet downsamples by {_IMAGENET_STRIDE}: images of {smallest} pixels leave one pixel for the "
            "last stage",
            "set model.stem=cifar, or larger images (data.image_size, data.progressive)",
        )


def _check_schedule(config: Config) -> Iterator[Check]:
    schedule, epochs = config.schedule, config.train.epochs
    warmup = schedule.warmup * epochs
    if schedule.warmup > 0.5:
        yield _warning(
            f"schedule.warmup {schedule.warmup:g}: the learning rate rises for {schedule.warmup:.0%} of the run",
            "it is a share of the run, not a number of epochs: set it to 0.2 or less",
        )
    late = [epoch for epoch in schedule.milestones if epoch >= epochs]
    if late:
        yield _warning(
            f"schedule.milestones {late} come at the end of the run or after it (train.epochs {epochs}) and have no effect",
            f"set milestones below {epochs}",
        )
    early = [epoch for epoch in schedule.milestones if epoch < warmup]
    if early:
        yield _warning(
            f"schedule.milestones {early} lie in the warm-up, which lasts {warmup:g} epochs; their drop comes at its end",
            "move them, or lower schedule.warmup",
        )
    shrink = config.optim.lr * config.optim.weight_decay
    if shrink > 0.1:
        yield _warning(
            f"optim.lr times optim.weight_decay removes {min(shrink, 1):.0%} of each weight in every step",
            "lower one of them",
        )


def _check_limits(config: Config) -> Iterator[Check]:
    epochs, early_stop, unfreeze = config.train.epochs, config.train.early_stop_epochs, config.model.unfreeze_after
    for key, value in (("train.early_stop_epochs", early_stop), ("model.unfreeze_after", unfreeze)):
        if value is not None and value >= epochs:
            yield _warning(
                f"{key} {value} has no effect: the run ends after {epochs} epochs", f"set it below {epochs}, or to none"
            )


def _check_augmentation(config: Config) -> Iterator[Check]:
    """Check for augmentation of images that are seen only once."""
    data = config.data
    if config.model.cache_features and config.model.unfreeze_after is None:
        names = ("crop_pad", "resized_crop", "trivial_augment", "cutout", "random_erase", "mixup", "cutmix")
        unused = [f"data.{name}" for name in names if getattr(data, name)]
        unused += ["data.flip"] if data.flip != "none" else []
        if unused:
            yield _warning(
                f"{', '.join(unused)} have no effect: model.cache_features looks at each image once, without augmentation",
                "set model.cache_features=false to use them",
            )


def step_checks(config: Config, num_images: int) -> Iterator[Check]:
    """Check the settings that depend on the steps per epoch."""
    batch = config.data.batch_size
    dropped = num_images % batch if config.data.drop_last else 0
    if dropped > num_images / 4:
        yield _warning(
            f"each epoch drops {dropped:,} of {num_images:,} training images, which do not fill a batch of {batch:,}",
            "set data.drop_last=false, or a smaller data.batch_size",
        )
    steps = max(1, num_images // batch if config.data.drop_last else -(-num_images // batch))
    positions = config.train.epochs if config.schedule.unit == "epoch" else config.train.epochs * steps
    if config.schedule.warmup and config.schedule.warmup * positions <= 1:
        yield _warning(
            f"schedule.warmup {config.schedule.warmup:g} of {positions:,} {config.schedule.unit}s is too short: only the first "
            f"{config.schedule.unit} has a lower rate",
            "raise schedule.warmup, or set it to 0",
        )
