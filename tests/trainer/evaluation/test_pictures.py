"""Picture sheets of a run: the most confident mistakes, training images as the network sees them, and their files."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor, nn

from trainer.config.schema import Config
from trainer.data.dataset import ResidentSplit
from trainer.evaluation.evaluate import MAX_MISTAKES, MistakeCollector, Mistakes
from trainer.evaluation.picture_sheet import Sheet, read_sheet, write_sheet
from trainer.evaluation.result_files import EvaluationFiles, name_of
from trainer.model.activation_map import activation_maps, heat_of
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.event import Event
from trainer.run.log.result_events import PicturesSaved
from trainer.run.log.run_events import Warned
from trainer.session.training_images import SHOWN, TrainingImages, training_images
from trainer.training.batch_source import plan_of
from trainer.training.build import build_trainer
from trainer.training.callbacks import LoopCallbacks
from trainer.training.loop import Trainer

CPU = torch.device("cpu")


def logits_for(predicted: list[int], confidences: list[float]) -> Tensor:
    """Logits of three classes whose softmax gives the predicted class its confidence."""
    rest = torch.tensor([(1 - confidence) / 2 for confidence in confidences])
    probabilities = rest[:, None].repeat(1, 3)
    probabilities[torch.arange(len(predicted)), torch.tensor(predicted)] = torch.tensor(confidences)
    return probabilities.log()


def picture(value: int) -> Tensor:
    return torch.full((4, 4, 3), value, dtype=torch.uint8)


def test_the_most_confident_mistakes_of_all_batches_are_kept_in_order() -> None:
    collector = MistakeCollector()
    labels = torch.tensor([0, 1, 2])
    pixels = torch.stack([picture(value) for value in (10, 11, 12)])
    collector.add(pixels, range(3), labels, logits_for([1, 1, 0], [0.6, 0.99, 0.9]))
    collector.add(pixels + 10, [5, 7, 8], labels, logits_for([0, 2, 1], [0.95, 0.8, 0.5]))
    mistakes = collector.result()
    assert mistakes is not None
    assert mistakes.rows == [2, 7, 0, 8]
    assert (mistakes.labels, mistakes.predicted) == ([2, 1, 0, 2], [0, 2, 1, 1])
    assert mistakes.confidences == pytest.approx([0.9, 0.8, 0.6, 0.5])
    assert mistakes.pixels_MHWC[:, 0, 0, 0].tolist() == [12, 21, 10, 22]


def test_an_image_with_nan_logits_comes_after_confident_mistakes() -> None:
    collector = MistakeCollector()
    logits = logits_for([1, 1], [0.9, 0.6])
    logits = torch.cat([torch.full((1, 3), torch.nan), logits])
    collector.add(torch.stack([picture(0)] * 3), range(3), torch.tensor([2, 0, 0]), logits)
    mistakes = collector.result()
    assert mistakes is not None
    assert (mistakes.rows, mistakes.confidences[-1]) == ([1, 2, 0], 0.0)


def test_only_the_most_confident_mistakes_are_kept() -> None:
    collector = MistakeCollector()
    assert collector.result() is None
    right = torch.zeros(4, dtype=torch.int64)
    collector.add(torch.stack([picture(0)] * 4), range(4), right, logits_for([0] * 4, [0.9] * 4))
    assert collector.result() is None
    for batch in range(3):
        rows = range(batch * MAX_MISTAKES, (batch + 1) * MAX_MISTAKES)
        labels = torch.ones(MAX_MISTAKES, dtype=torch.int64)
        pixels = torch.zeros(MAX_MISTAKES, 4, 4, 3, dtype=torch.uint8)
        collector.add(pixels, rows, labels, logits_for([0] * MAX_MISTAKES, [0.5 + 0.001 * row for row in rows]))
    mistakes = collector.result()
    assert mistakes is not None
    assert mistakes.rows == list(range(3 * MAX_MISTAKES - 1, 2 * MAX_MISTAKES - 1, -1))


def sheet_of(count: int, side: int = 6) -> Sheet:
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return Sheet(
        pixels_NHWC=pixels, captions=[{"class": f"[b]ä{index}"} for index in range(count)], facts={"size": side}
    )


@pytest.mark.parametrize("count", [1, 8, 19])
def test_a_sheet_is_an_image_and_is_read_back(tmp_path: Path, count: int) -> None:
    sheet = sheet_of(count)
    write_sheet(tmp_path / "eval" / "x.png", sheet)
    again = read_sheet(tmp_path / "eval" / "x.png")
    assert np.array_equal(again.pixels_NHWC, sheet.pixels_NHWC)
    assert (again.captions, again.facts) == (sheet.captions, sheet.facts)
    with Image.open(tmp_path / "eval" / "x.png") as image:
        assert image.size == (min(count, 8) * 6, -(-count // 8) * 6)


def test_large_images_are_reduced_for_a_sheet(tmp_path: Path) -> None:
    pixels = np.zeros((2, 128, 128, 3), dtype=np.uint8)
    pixels[0, :, ::2] = 200
    write_sheet(tmp_path / "x.png", Sheet(pixels_NHWC=pixels, captions=[{}, {}]))
    again = read_sheet(tmp_path / "x.png").pixels_NHWC
    assert again.shape == (2, 64, 64, 3)
    assert np.unique(again[0]).tolist() == [100]


def test_a_file_that_is_not_a_sheet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(ValueError, match="not a sheet"):
        read_sheet(path)
    write_sheet(path, sheet_of(3))
    whole = path.read_bytes()
    for damaged in (b"", whole[:40]):
        path.write_bytes(damaged)
        with pytest.raises((OSError, ValueError)):
            read_sheet(path)
    path.unlink()
    with pytest.raises(OSError, match=r"x\.png"):
        read_sheet(path)


@pytest.mark.parametrize(
    "metadata",
    [
        {}, [], 7, {"captions": [{}]}, {"side": 0, "captions": [{}]}, {"side": 6, "captions": []},
        {"side": 9, "captions": [{}] * 3}, {"side": 6, "captions": [{}] * 4}, {"side": 6, "captions": ["x"]},
        {"side": 6, "captions": [{"confidence": "high"}]}, {"side": 6, "captions": [{"class": 3}]},
        {"side": 6, "captions": [{"share": 7}]}, {"side": 6, "captions": [{"heat": 3}]},
        {"side": 6, "captions": [{"heat": []}]}, {"side": 6, "captions": [{"heat": [[1, 2], [3]]}]},
        {"side": 6, "captions": [{"heat": [[1, 256]]}]}, {"side": 6, "captions": [{"heat": [[0] * 65]}]},
    ],
    ids=str,
)  # fmt: skip
def test_invalid_metadata_of_a_sheet_is_refused(tmp_path: Path, metadata: object) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("r18-tui", json.dumps(metadata))
    Image.new("RGB", (18, 6)).save(tmp_path / "x.png", pnginfo=text)
    with pytest.raises(ValueError, match=r"x\.png"):
        read_sheet(tmp_path / "x.png")


def test_a_pipe_or_a_too_large_sheet_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    Image.new("RGB", (5000, 1)).save(tmp_path / "wide.png")
    for name in ("fifo.png", "wide.png"):
        with pytest.raises((OSError, ValueError), match=name):
            read_sheet(tmp_path / name)


def folder_trainer(config: Config) -> Trainer:
    return build_trainer(config, Path("runs"), LoopCallbacks(), lambda *_: None, None).trainer


AUGMENTED: dict[str, dict[str, Any]] = {
    "crop and flip": {"crop_pad": 2, "flip": "alternate", "cutout": 4},
    "mixup and cutmix": {"crop_pad": 2, "flip": "random", "mixup": 0.5, "cutmix": 1.0},
    "crops of any size": {"resized_crop": 0.3, "flip": "random", "random_erase": 0.5},
    "small first": {"crop_pad": 2, "image_size": 16, "progressive": [[8, 1]]},
}


@pytest.mark.parametrize("cache", ["ram", "none"])
@pytest.mark.parametrize("case", AUGMENTED)
def test_the_shown_training_images_are_those_of_the_step(folder_config: Config, case: str, cache: str) -> None:
    data = folder_config.data.model_copy(update={**AUGMENTED[case], "cache": cache, "workers": 0})
    config = folder_config.model_copy(update={"data": type(data).model_validate(data.model_dump())})
    trainer, images = folder_trainer(config), TrainingImages(config)
    seen: list[Tensor] = []

    def note(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].detach().float().clone())

    trainer.state.model.register_forward_pre_hook(note)
    for epoch in (0, 1):
        seen.clear()
        batch = next(batch for batch in trainer.batches.epoch(epoch, 0) if batch is not None)
        trainer.train_step.prepare(0)
        trainer.train_step(batch, epoch=epoch, lr=0.1, metrics_3=torch.zeros(3))
        plan = plan_of(config, trainer.data.dataset.splits["train"].labels_N)
        sheet = training_images(trainer.data, config, plan, epoch, images.weights_of(trainer.state.model, 3))
        count = min(SHOWN, len(batch))
        normalize = trainer.data.normalize
        trained = seen[0][:count].permute(0, 2, 3, 1) * normalize.std_C + normalize.mean_C
        expected = (trained * 255).clamp(0, 255).numpy()
        assert sheet.pixels_NHWC.shape == expected.shape
        assert np.abs(sheet.pixels_NHWC - expected).max() < 3, "bf16 rounds to a hundredth"
        assert sheet.facts["size"] == config.data.size_in(epoch)
        classes = trainer.data.dataset.classes
        assert [caption["class"] for caption in sheet.captions] == [classes[label] for label in batch.labels_N[:count]]
        if "mixup" in AUGMENTED[case]:
            others = [classes[label] for label in batch.labels_N.roll(1)[:count]]
            assert [caption["mixed_with"] for caption in sheet.captions] == others
        assert all("/" in caption["name"] for caption in sheet.captions), "folder and file"
        maps = activation_maps(trainer.state.model.eval(), seen[0][:count], batch.labels_N[:count])[1]
        heat = heat_of(maps).int()
        assert (heat - torch.tensor([caption["heat"] for caption in sheet.captions])).abs().max() <= 2
    trainer.batches.close()


def test_training_images_are_due_after_a_minute_and_at_another_size(
    folder_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("trainer.session.training_images.time.monotonic", lambda: now[0])
    data = folder_config.data.model_copy(update={"image_size": 16, "progressive": [[8, 2]]})
    images = TrainingImages(folder_config.model_copy(update={"data": data}))
    assert [images.due(0), images.due(1), images.due(2), images.due(3)] == [True, False, True, False]
    now[0] += 61
    assert images.due(3)


def test_unwritable_sheets_cause_one_warning(tmp_path: Path) -> None:
    published: list[Event] = []
    (tmp_path / "eval").write_text("in the way")
    for _ in range(2):
        files = EvaluationFiles(RunDir(tmp_path), published.append)
        for step in range(3):
            files.write_training_images(lambda: sheet_of(3), step=step, epoch=1)
            time.sleep(0.05)
        files.close()
        (event,) = published
        assert isinstance(event, Warned)
        assert "training.png: not written" in event.message
        published.clear()


def test_a_failed_writer_thread_is_only_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    published: list[Event] = []
    files = EvaluationFiles(RunDir(tmp_path), published.append)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_room)
        files.write_training_images(lambda: sheet_of(3), step=0, epoch=1)
        files.write_training_images(lambda: sheet_of(3), step=1, epoch=1)
    assert [type(event) for event in published] == [Warned]
    files.close()


def test_a_written_sheet_is_published_with_its_path(tmp_path: Path) -> None:
    published: list[Event] = []
    files = EvaluationFiles(RunDir(tmp_path), published.append)
    files.write_training_images(lambda: sheet_of(3), step=7, epoch=2)
    files.close()
    assert published == [
        PicturesSaved(what="training", split="train", step=7, epoch=2, path="eval/training.png", images=3)
    ]
    assert json.dumps(read_sheet(tmp_path / "eval/training.png").captions) == json.dumps(sheet_of(3).captions)


def test_only_the_newest_waiting_sheet_is_written(tmp_path: Path) -> None:
    published: list[Event] = []
    files = EvaluationFiles(RunDir(tmp_path), published.append)
    held = threading.Event()

    def slow() -> Sheet:
        held.wait(10)
        return sheet_of(1)

    files.write_training_images(slow, step=1, epoch=1)
    time.sleep(0.1)
    for count in (2, 3, 4):
        files.write_training_images(lambda count=count: sheet_of(count), step=count, epoch=1)  # type: ignore[misc]
    held.set()
    files.close()
    assert [event.images for event in published if isinstance(event, PicturesSaved)] == [1, 4]


def test_an_evaluation_without_mistakes_removes_earlier_pictures(tmp_path: Path, folder_config: Config) -> None:
    trainer, published = folder_trainer(folder_config), list[Event]()
    data = trainer.data.dataset
    mistakes = Mistakes(
        pixels_MHWC=data.splits["test"].pixels([3]), rows=[3], labels=[0], predicted=[1], confidences=[0.9]
    )
    files = EvaluationFiles(RunDir(tmp_path), published.append)
    files.write_mistakes(mistakes, data, "test", step=10, epoch=1.0)
    files.close()
    (caption,) = read_sheet(tmp_path / "eval/mistakes-test.png").captions
    assert (caption["class"], caption["predicted"], caption["confidence"]) == (data.classes[0], data.classes[1], 0.9)
    assert data.splits["test"].paths is not None
    assert data.splits["test"].paths[3].endswith(caption["name"])
    again = EvaluationFiles(RunDir(tmp_path), published.append)
    again.write_mistakes(None, data, "test", step=20, epoch=2.0)
    again.close()
    assert not (tmp_path / "eval/mistakes-test.png").exists()
    assert [event.images for event in published if isinstance(event, PicturesSaved)] == [1, 0]


def test_images_are_named_by_file_or_number(folder_config: Config) -> None:
    images = folder_trainer(folder_config).data.dataset.splits["train"]
    assert images.paths is not None
    part = images.subset(torch.tensor([3, 1]))
    assert part.paths == [images.paths[3], images.paths[1]]
    assert name_of(part, 1, "val") == "/".join(Path(images.paths[1]).parts[-2:])
    assert name_of(ResidentSplit(torch.zeros(2, 1, 1, 3), torch.zeros(2)), 1, "val") == "val image 1"


def test_a_lost_image_is_not_shown_among_training_images(folder_config: Config) -> None:
    data = folder_config.data.model_copy(update={"cache": "none", "workers": 0, "batch_size": 32})
    config = folder_config.model_copy(update={"data": data})
    trainer = folder_trainer(config)
    images = trainer.data.dataset.splits["train"]
    plan = plan_of(config, images.labels_N)
    weights = TrainingImages(config).weights_of(trainer.state.model, 3)
    whole = training_images(trainer.data, config, plan, 0, weights)
    assert len(whole.captions) == 32
    assert images.paths is not None
    lost = int(plan.order(0)[4])
    Path(images.paths[lost]).unlink()
    shown = training_images(trainer.data, config, plan, 0, weights)
    expected = [caption["name"] for caption in whole.captions if caption["name"] not in images.paths[lost]]
    assert [caption["name"] for caption in shown.captions] == expected
    trainer.batches.close()
