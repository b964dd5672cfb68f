"""Frozen stages of the network: a pure function of the configuration, the epoch and the keys pressed."""

from __future__ import annotations

from trainer.config.schema import ModelConfig

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4", "classifier")
"""From the image to the classes. The last stage is never frozen."""

BACKBONE = len(STAGES) - 1  # stages before the classifier
_FROZEN_AT_FIRST = {"none": 0, "layer1": 2, "layer2": 3, "layer3": 4, "backbone": BACKBONE}


def frozen_stages(config: ModelConfig, epoch: int, *, unfrozen_by_key: int = 0) -> int:
    """Number of frozen stages, from the image, in an epoch from 0; `unfrozen_by_key` is unfrozen minus frozen."""
    frozen = _FROZEN_AT_FIRST[config.freeze]
    if config.unfreeze_after is not None and epoch >= config.unfreeze_after:
        every = config.unfreeze_every
        frozen = max(frozen - 1 - (epoch - config.unfreeze_after) // every, 0) if every else 0
    return min(max(frozen - unfrozen_by_key, 0), BACKBONE)


def stage_of(parameter: str) -> int:
    """Stage, counted from the image, of a parameter with torchvision's name."""
    first = parameter.split(".")[0]
    if first in ("conv1", "bn1"):
        return 0
    return STAGES.index(first) if first in STAGES else BACKBONE


def unfreezing_ends(config: ModelConfig) -> int:
    """First epoch from which the number of frozen stages no longer changes."""
    frozen = _FROZEN_AT_FIRST[config.freeze]
    if config.unfreeze_after is None or not frozen:
        return 0
    return config.unfreeze_after + config.unfreeze_every * (frozen - 1)
