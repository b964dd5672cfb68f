"""A linear model of three classes of noise to export, and a stand-in for onnxruntime whose answers can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.support.checkpoints import checkpoint_of
from trainer.config.loader import build_config
from trainer.data.augment.augment import Normalize
from trainer.data.dataset import DataSet, ResidentSplit
from trainer.export.export_source import ExportSource
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.event import Event
from trainer.session import export_run as command

HELD_OUT, TRAIN, SIDE, CLASSES = 200, 100, 8, 3
MEAN, STD = [0.1, 0.2, 0.3], [0.5, 0.25, 0.125]
CALLS = 7  # batches of 1, 2, 7, and 256 images as four of 64
QUIET: Callable[..., None] = lambda *_, **__: None  # noqa: E731


class Linear(nn.Module):
    """Logits that are a linear function of the pixels."""

    def __init__(self, weight_KD: Tensor, bias_K: Tensor) -> None:
        super().__init__()
        self.fc = nn.Linear(weight_KD.shape[1], len(bias_K))
        self.fc.load_state_dict({"weight": weight_KD, "bias": bias_K})

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits_NK: Tensor = self.fc(images_NCHW.flatten(1))
        return logits_NK


def images(count: int, seed: int) -> ResidentSplit:
    drawn = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, SIDE, SIDE, 3), dtype=torch.uint8, generator=drawn)
    return ResidentSplit(pixels, torch.arange(count) % CLASSES)


def noise_subject(
    *, held_out: int = HELD_OUT, scale: float = 0.05, bias: tuple[float, ...] = (0.0,) * CLASSES, embed: bool = False
) -> ExportSource:
    """Two splits of noise and a linear model; with `scale` 0 its logits are its bias."""
    weight_KD = scale * torch.randn(CLASSES, SIDE * SIDE * 3, generator=torch.Generator().manual_seed(0))
    splits = {"train": images(TRAIN, 1), "val": images(held_out, 2)}
    return ExportSource(
        checkpoint=checkpoint_of({}, step=4), model=Linear(weight_KD, torch.tensor(bias)).eval(),
        config=build_config({}, {}, "test", [f"data.image_size={SIDE}"]),
        dataset=DataSet(
            name="noise", classes=("a", "b", "c"), splits=dict(splits), fingerprint="f", identity={}, preprocess={}
        ),
        split="val", normalize=Normalize.of(MEAN, STD, torch.device("cpu")), preprocess={}, embed=embed,
    )  # fmt: skip


def reference_logits(subject: ExportSource, pixels_NHWC: Tensor) -> Tensor:
    """The model's logits, computed in float64."""
    scaled = (pixels_NHWC.double() / 255 - torch.tensor(MEAN).double()) / torch.tensor(STD).double()
    state = {name: value.double() for name, value in subject.model.state_dict().items()}
    logits_NK: Tensor = scaled.permute(0, 3, 1, 2).flatten(1) @ state["fc.weight"].T + state["fc.bias"]
    return logits_NK


Fault = Callable[[int, NDArray[np.float32]], NDArray[np.float32]]


def no_fault(_call: int, answers_NK: NDArray[np.float32]) -> NDArray[np.float32]:
    return answers_NK


def error_at(call: int, row: int, label: int, by: float) -> Fault:
    """A fault that adds `by` to one element of the answers of one call."""

    def fault(now: int, answers_NK: NDArray[np.float32]) -> NDArray[np.float32]:
        if now == call:
            answers_NK = answers_NK.copy()
            answers_NK[row, label] += by
        return answers_NK

    return fault


class Session:
    """Stands in for an onnxruntime session: the model's answers with a fault in them."""

    def __init__(self, subject: ExportSource, fault: Fault = no_fault) -> None:
        self.fed: list[NDArray[Any]] = []
        self._one, self._fault = subject, fault

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="pixels" if self._one.embed else "input")]

    def run(self, _: None, feed: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        (given,) = feed.values()
        self.fed.append(given)
        batch = torch.from_numpy(given)
        with torch.no_grad():
            answers = (
                reference_logits(self._one, batch).softmax(1).float() if self._one.embed else self._one.model(batch)
            )
        return [self._fault(len(self.fed) - 1, answers.numpy())]


def make_export(subject: ExportSource, tmp_path: Path, *, published: list[Event] | None = None) -> command._Export:
    run_dir = RunDir(tmp_path)
    run_dir.export.mkdir(exist_ok=True)
    return command._Export(run_dir, subject, (), QUIET if published is None else published.append)
