"""Classifier that uses a run's checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.data.augment.augment import Normalize
from trainer.data.folder.decoder import Decoder
from trainer.evaluation.run_settings import settings_now
from trainer.model.activation_map import activation_maps, heat_of
from trainer.model.checkpoint import read_checkpoint
from trainer.model.checkpoint_folder import CheckpointFolder
from trainer.model.device import choose_device
from trainer.model.resnet import build_model
from trainer.run.folder.run_dir import RunDir, run_of_file


def from_run(run_dir: RunDir, which: str, device: str) -> CheckpointClassifier:
    """Create the classifier from a run's checkpoint: `best`, `latest`, `default` or a step."""
    return CheckpointClassifier(CheckpointFolder(run_dir, keep=2).choose(which), device)


class CheckpointClassifier:
    """PyTorch in fp32, the reference for exported files."""

    def __init__(self, path: Path, device: str) -> None:
        """Load a checkpoint file; CheckpointError when it is damaged or of another program."""
        checkpoint = read_checkpoint(path)
        run = checkpoint.run
        config = settings_now(run_of_file(path), run.config)
        self.origin = f"{path} (step {path.stem.partition('-')[2].lstrip('0') or '0'})"
        self.classes = tuple(run.classes)
        self.decoder = Decoder.described_by(run.preprocess)
        self._device = choose_device(device)
        model = build_model(config.model, len(self.classes), config.run.seed)
        model.load_state_dict(checkpoint.evaluated_weights)
        self._model = model.to(self._device).to(memory_format=torch.channels_last).eval()
        self._normalize = Normalize.of(run.mean, run.std, self._device)

    def explain(self, pixels_NHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """How much each place of an image speaks for its most probable class: uint8 (N, h, w), 0 to 255."""
        heat: NDArray[np.uint8] = heat_of(activation_maps(self._model, self._images(pixels_NHWC))[1]).cpu().numpy()
        return heat

    @torch.no_grad()
    def probabilities(self, pixels_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute the probability of each class."""
        probabilities: NDArray[np.float32] = self._model(self._images(pixels_NHWC)).float().softmax(1).cpu().numpy()
        return probabilities

    def _images(self, pixels_NHWC: NDArray[np.uint8]) -> Tensor:
        return self._normalize(torch.from_numpy(pixels_NHWC).to(self._device)).permute(0, 3, 1, 2)
