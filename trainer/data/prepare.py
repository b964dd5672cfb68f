"""Turns the `data:` settings into images that are ready for training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from trainer.config.data_config import DataConfig
from trainer.config.schema import Config
from trainer.data.augment.augment import Normalize
from trainer.data.cifar import load_cifar
from trainer.data.dataset import DataSet, ResidentSplit, channel_statistics, with_held_out
from trainer.data.digits import load_digits
from trainer.data.folder.decoder import Decoder
from trainer.data.folder.layout import count_images
from trainer.data.image_folder import PixelStorage, load_image_folder
from trainer.host.limits import usable_cpus, usable_memory
from trainer.host.progress import Progress
from trainer.host.torchrun import local_world_size

IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]
"""ImageNet statistics. Source: torchvision's weights documentation, ResNet18_Weights.IMAGENET1K_V1."""

_SHARE_OF_DEVICE = 0.4
_SHARE_OF_RAM = 0.5


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """Data with the statistics that normalise them; `cache` is where the pixels are: `device`, `ram` or `none`."""

    dataset: DataSet
    mean: list[float]
    std: list[float]
    cache: str
    device: torch.device

    @property
    def normalize(self) -> Normalize:
        """Normalisation of uint8 pixels to the network's scale."""
        return Normalize.of(self.mean, self.std, self.device)

    def preprocess(self, image_size: int) -> dict[str, object]:
        """Complete conversion of a picture to the network's input, in the form that exported models store."""
        return {
            "size": image_size, **self.dataset.preprocess, "mean": self.mean, "std": self.std,
            "channel_order": "RGB", "pixel_scale": 1 / 255,
        }  # fmt: skip


def prepare_data(
    config: Config,
    device: torch.device,
    progress: Progress,
    *,
    source_statistics: tuple[list[float], list[float]] | None = None,
) -> PreparedData:
    """Load, check, split and place the data, and compute their statistics; DataError when they cannot be trained on.

    `source_statistics` are mean and std of the run that `model.init_from` names, if any.
    """
    dataset, cache = load_dataset(config, device, progress)
    dataset.check(batch_size=config.data.batch_size, num_classes=config.model.num_classes)
    mean, std = _statistics(config, dataset, source_statistics, progress)
    if cache == "device":
        for split in dataset.splits.values():
            assert isinstance(split, ResidentSplit)
            split.pixels_NHWC = split.pixels_NHWC.to(device)
    return PreparedData(dataset=dataset, mean=mean, std=std, cache=cache, device=device)


def load_dataset(
    config: Config, device: torch.device, progress: Progress, *, for_training: bool = True
) -> tuple[DataSet, str]:
    """Load the source and choose the location of its pixels. Without `for_training`, training images are only listed."""
    data = config.data
    root = Path(data.root).expanduser()
    if data.kind == "imagefolder":
        return _load_folder(config, root, device, progress, for_training=for_training)
    if data.kind == "digits":
        dataset, cache = load_digits(data.image_size), place_pixels(data, 1797, device)
    else:
        dataset, cache = load_cifar(data.kind, root, data.image_size, progress), place_pixels(data, 60_000, device)
    splits = with_held_out(dataset.splits, data.held_out_shares, seed=config.run.seed)
    return dataclasses.replace(dataset, splits=splits), cache


def load_held_out(config: Config, progress: Progress) -> DataSet:
    """Load a run's data for another evaluation: training images of a folder are decoded only when requested."""
    return load_dataset(config, torch.device("cpu"), progress, for_training=False)[0]


def undecoded(config: Config) -> Config:
    """The same configuration with images left on disk, for callers that only need the list of images."""
    return config.model_copy(update={"data": config.data.model_copy(update={"cache": "none"})})


def decoder_of(config: DataConfig) -> Decoder:
    """Decoder of a folder's files."""
    return Decoder(image_size=config.image_size, crop_pct=config.crop_pct, fit=config.fit, reading=config.reading)


def _train_decoder(config: DataConfig) -> Decoder:
    decoder = decoder_of(config)
    if config.resized_crop is None or config.fit != "crop":
        return decoder
    # Random crops use the whole area that the centre crop is taken from. A letterboxed picture is already whole.
    return Decoder(image_size=decoder.resize, crop_pct=1.0, reading=config.reading)


def _load_folder(
    config: Config, root: Path, device: torch.device, progress: Progress, *, for_training: bool
) -> tuple[DataSet, str]:
    data = config.data
    progress("counting images", None)
    cache = place_pixels(data, count_images(root, data.reading), device)  # counted before any is opened
    kept = PixelStorage.STREAM if cache == "none" else PixelStorage.RESIDENT
    dataset = load_image_folder(
        root,
        decoder=decoder_of(data),
        train_decoder=_train_decoder(data) if for_training else None,
        keep=lambda name: PixelStorage.LAZY if name == "train" and not for_training else kept,
        progress=progress,
        shares=data.held_out_shares,
        seed=config.run.seed,
    )
    return dataset, cache


def worker_count(config: DataConfig) -> int:
    """Number of decoding processes: as configured, or one less than the cores per training process, 1 to 8."""
    cores = usable_cpus() // local_world_size()
    return config.workers if config.workers != "auto" else max(1, min(8, cores - 1))


def place_pixels(config: DataConfig, num_images: int, device: torch.device) -> str:
    """Choose where decoded images are kept: `device`, `ram`, or `none` when they are decoded whenever they are needed.

    With `cache: auto`, the first place with room for the images of all splits is taken. Processes of one machine share its RAM.
    """
    if config.cache != "auto":
        # Only folders can be streamed; the other sources are in memory anyway.
        return "ram" if config.cache == "none" and config.kind != "imagefolder" else config.cache
    needed = num_images * _train_decoder(config).image_size ** 2 * 3
    if needed > usable_memory().available * _SHARE_OF_RAM / local_world_size():
        return "none"
    too_large = device.type == "cuda" and needed > torch.cuda.mem_get_info(device)[0] * _SHARE_OF_DEVICE
    return "ram" if too_large else "device"


def _statistics(
    config: Config, dataset: DataSet, source: tuple[list[float], list[float]] | None, progress: Progress
) -> tuple[list[float], list[float]]:
    mean, std = config.data.mean, config.data.std
    if mean == "auto" or std == "auto":
        if config.model.init_from == "imagenet":
            automatic = (IMAGENET_MEAN, IMAGENET_STD)
        else:
            automatic = source or channel_statistics(dataset.splits["train"], progress)
        mean = automatic[0] if mean == "auto" else mean
        std = automatic[1] if std == "auto" else std
    return list(mean), list(std)
