"""Features of pictures from a trained network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from trainer.config.schema import ModelConfig
from trainer.data.augment.augment import Normalize
from trainer.data.folder.decoder import Decoder, decode_files
from trainer.data.folder.suggested_config import Start
from trainer.data.prepare import IMAGENET_MEAN, IMAGENET_STD
from trainer.errors import CheckpointError
from trainer.host.progress import Progress
from trainer.model.device import choose_device
from trainer.model.initial_weights import InitialWeights, find_initial_weights
from trainer.model.resnet import build_model, features_of
from trainer.model.weight_loading import load_initial_weights

_SIDES = {"imagenet": 224, "cifar-maxpool": 64, "cifar": 32}
"""Side of the input in pixels, by stem, where the source of the weights does not say."""
_BATCH = 64


@dataclass(frozen=True)
class Backbone:
    """A network without its classifier."""

    origin: str  # source of its weights, for people
    model: nn.Module
    decoder: Decoder
    normalize: Normalize
    device: torch.device

    @classmethod
    def load(cls, start: Start, runs_dir: Path, device: str, progress: Progress, *, fit: str = "crop") -> Backbone:
        """Load the weights that `start` describes; CheckpointError when they cannot be read, downloaded or trusted."""
        assert start.reference is not None
        weights, chosen = find_initial_weights(start.reference, runs_dir, progress), choose_device(device)
        stem = start.stem or _stem_of(weights)
        if stem not in _SIDES:
            raise CheckpointError(f"{weights.origin}: its metadata name the unknown stem {stem!r}; update r18-tui")
        model = build_model(ModelConfig.model_validate({"stem": stem}), 2, seed=0)
        if random := load_initial_weights(model, weights, ()).random_backbone:
            raise CheckpointError(
                f"{weights.origin}: has no {', '.join(random[:3])} that fit, so its features would be partly random"
            )
        mean, std = weights.statistics or (IMAGENET_MEAN, IMAGENET_STD)
        return cls(
            origin=weights.origin, model=model.to(chosen).to(memory_format=torch.channels_last).eval(),
            decoder=Decoder(image_size=start.image_size or _SIDES[stem], crop_pct=1.0, fit=fit),
            normalize=Normalize.of(mean, std, chosen), device=chosen,
        )  # fmt: skip

    @torch.no_grad()
    def features(self, paths: Sequence[str], progress: Progress) -> tuple[Tensor, list[int]]:
        """Features (N, 512) of those files that can be read, on the CPU, and their indices."""
        parts: list[Tensor] = []
        kept: list[int] = []
        for start in range(0, len(paths), _BATCH):
            pixels_NHWC, indices, _ = decode_files(self.decoder, paths[start : start + _BATCH])
            if indices:
                images_NCHW = self.normalize(torch.from_numpy(pixels_NHWC).to(self.device)).permute(0, 3, 1, 2)
                parts.append(features_of(self.model, images_NCHW).float().cpu())
                kept += [start + index for index in indices]
            progress("computing features", min(start + _BATCH, len(paths)) / len(paths))
        return torch.cat(parts) if parts else torch.empty(0, 512), kept


def _stem_of(weights: InitialWeights) -> str:
    """The stem that goes with the first kernel, for weights that do not name it."""
    kernels = [
        tensor for name, tensor in weights.state.items() if name == "conv1.weight" or name.endswith(".conv1.weight")
    ]
    return "cifar" if kernels and kernels[0].shape[-1] == 3 and kernels[0].shape[1] == 3 else "imagenet"
