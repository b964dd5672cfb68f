"""A linear model of three classes of noise, as something to export, and an onnxruntime whose answers can be off."""

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
from trainer.export.exported_model import ExportedModel
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.event import Event
from trainer.session import export_run as command

HELD_OUT, TRAIN, SIDE, CLASSES = 200, 100, 8, 3
MEAN, STD = [0.1, 0.2, 0.3], [0.5, 0.25, 0.125]
CALLS = 7
"""Batches of 1, 2, 7, and 256 images as four of 64."""
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


def made(
    *, held_out: int = HELD_OUT, scale: float = 0.05, bias: tuple[float, ...] = (0.0,) * CLASSES, embed: bool = False
) -> ExportedModel:
    """Two splits of noise and a linear model, whose logits are its bias where `scale` is 0."""
    weight_KD = scale * torch.randn(CLASSES, SIDE * SIDE * 3, generator=torch.Generator().manual_seed(0))
    splits = {"train": images(TRAIN, 1), "val": images(held_out, 2)}
    return ExportedModel(
        checkpoint=checkpoint_of({}, step=4), model=Linear(weight_KD, torch.tensor(bias)).eval(),
        config=build_config({}, {}, "test", [f"data.image_size={SIDE}"]),
        dataset=DataSet(
            name="noise", classes=("a", "b", "c"), splits=dict(splits), fingerprint="f", identity={}, preprocess={}
        ),
        split="val", normalize=Normalize.of(MEAN, STD, torch.device("cpu")), preprocess={}, embed=embed,
    )  # fmt: skip


def by_hand(one: ExportedModel, pixels_NHWC: Tensor) -> Tensor:
    """The model's logits in float64."""
    scaled = (pixels_NHWC.double() / 255 - torch.tensor(MEAN).double()) / torch.tensor(STD).double()
    state = {name: value.double() for name, value in one.model.state_dict().items()}
    logits_NK: Tensor = scaled.permute(0, 3, 1, 2).flatten(1) @ state["fc.weight"].T + state["fc.bias"]
    return logits_NK


Fault = Callable[[int, NDArray[np.float32]], NDArray[np.float32]]


def none(_call: int, answers_NK: NDArray[np.float32]) -> NDArray[np.float32]:
    return answers_NK


def off(call: int, row: int, label: int, by: float) -> Fault:
    """One element of the answers of one call is off by so much."""

    def fault(now: int, answers_NK: NDArray[np.float32]) -> NDArray[np.float32]:
        if now == call:
            answers_NK = answers_NK.copy()
            answers_NK[row, label] += by
        return answers_NK

    return fault


class Session:
    """Stands in for onnxruntime: answers as the model does, but for a fault."""

    def __init__(self, one: ExportedModel, fault: Fault = none) -> None:
        self.fed: list[NDArray[Any]] = []
        self._one, self._fault = one, fault

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="pixels" if self._one.embed else "input")]

    def run(self, _: None, feed: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        (given,) = feed.values()
        self.fed.append(given)
        batch = torch.from_numpy(given)
        with torch.no_grad():
            answers = by_hand(self._one, batch).softmax(1).float() if self._one.embed else self._one.model(batch)
        return [self._fault(len(self.fed) - 1, answers.numpy())]


def an_export(one: ExportedModel, tmp_path: Path, *, said: list[Event] | None = None) -> command._Export:
    run_dir = RunDir(tmp_path)
    run_dir.export.mkdir(exist_ok=True)
    return command._Export(run_dir, one, (), QUIET if said is None else said.append)
