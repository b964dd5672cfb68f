"""Classification of images by a trained model, from an exported file or a run. Torch-free by itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trainer.data.folder.decoder import Decoder
from trainer.errors import CheckpointError, RunError
from trainer.model.metadata import class_names, normalization
from trainer.model.model_files import kind_of_file
from trainer.run.folder.run_dir import find_run


class Classifier(Protocol):
    """Classifies images."""

    origin: str  # name of the model, for messages
    classes: tuple[str, ...]  # names, by label
    decoder: Decoder  # converts a file to the input of `probabilities`

    def probabilities(self, pixels_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute the probability of each class: uint8 (N, S, S, 3) to float32 (N, K)."""


def open_classifier(model: str, *, runs_dir: Path, which: str, device: str) -> Classifier:
    """Open the model that a user names: an ONNX file, a checkpoint, or a run (a directory, a name or `latest`).

    `which` selects the checkpoint of a run: `best`, `latest`, `default` or a step. CheckpointError when the model
    cannot be read or lacks metadata, RunError when there is no such file or run.
    """
    path = Path(model).expanduser()
    if path.suffix == ".onnx":
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file")
        return OnnxClassifier(path)
    run_dir = None
    if not path.is_file():
        try:
            run_dir = find_run(model, runs_dir)
        except RunError as error:
            raise RunError(
                f"{error}\nA model is an exported .onnx file, a checkpoint (.safetensors) or a run"
            ) from None
    from trainer.evaluation.checkpoint_classifier import CheckpointClassifier, from_run  # imports PyTorch

    return CheckpointClassifier(path, device) if run_dir is None else from_run(run_dir, which, device)


class OnnxClassifier:
    """Classifier that uses an exported file and needs only onnxruntime."""

    def __init__(self, path: Path) -> None:
        """Load the file; CheckpointError when it is damaged or lacks the metadata that this program writes."""
        import onnxruntime

        self.origin = str(path)
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=_providers(onnxruntime))
        except Exception as error:  # each failure of onnxruntime has its own type, and they share no base class
            raise CheckpointError(
                f"{path}: onnxruntime cannot load it{kind_of_file(path, '.onnx') or f': {error}'}"
            ) from error
        metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        if "classes" not in metadata or "preprocess" not in metadata:
            raise CheckpointError(
                f"{path}: its metadata has no `classes` and `preprocess`, so its inputs and outputs are unknown; "
                f"export it with r18-tui"
            )
        try:
            self.classes = class_names(metadata["classes"])
            preprocess = json.loads(metadata["preprocess"])
            self.decoder = Decoder.described_by(preprocess)
            self._scale, self._shift = normalization(preprocess)
            model_input, output = self._session.get_inputs()[0], self._session.get_outputs()[0]
            self._takes_pixels = model_input.type == "tensor(uint8)"
            _refuse_other_shape("input", model_input.shape, self._input_shape())
            _refuse_other_shape("output", output.shape, (1, len(self.classes)))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CheckpointError(
                f"{path}: its metadata cannot be used: {error}; export it again, or update r18-tui"
            ) from error
        self._input = model_input.name

    def _input_shape(self) -> tuple[int, ...]:
        side = self.decoder.image_size
        return (1, side, side, 3) if self._takes_pixels else (1, 3, side, side)

    def probabilities(self, pixels_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute the probability of each class."""
        if self._takes_pixels:
            answer: NDArray[np.float32] = self._session.run(None, {self._input: pixels_NHWC})[0]
            return answer
        images_NCHW = np.ascontiguousarray(
            (pixels_NHWC.astype(np.float32) * self._scale - self._shift).transpose(0, 3, 1, 2)
        )
        return softmax(self._session.run(None, {self._input: images_NCHW})[0])


def _refuse_other_shape(name: str, found: Sequence[int | str | None], expected: Sequence[int]) -> None:
    """Raise ValueError where a shape disagrees with the metadata. A dimension without a number accepts any length."""
    pairs = list(zip(found, expected, strict=False))[1:]
    if len(found) != len(expected) or any(isinstance(there, int) and there != wanted for there, wanted in pairs):
        raise ValueError(f"the model's {name} is batch x {' x '.join(map(str, found[1:]))}, expected {expected[1:]}")


def softmax(logits_NK: NDArray[np.float32]) -> NDArray[np.float32]:
    """Convert logits to probabilities."""
    shifted = logits_NK - logits_NK.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    result: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return result


def _providers(onnxruntime: Any) -> list[str]:
    available = onnxruntime.get_available_providers()
    return [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
