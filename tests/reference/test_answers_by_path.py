"""`predict` and `eval`: each answer belongs to its image, also if others cannot be read or have no answer."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.reference.evaluation_pictures import NumberClassifier, numbered_image, write_images
from tests.support.progress import quiet
from trainer.commands.predict import Prediction, predict
from trainer.data.folder.layout import find_layout
from trainer.errors import DataError
from trainer.evaluation import classifier_evaluation as measure_module
from trainer.evaluation.classifier_evaluation import (
    CORRUPTIONS,
    corrupt_batch,
    evaluate_classifiers,
    evaluate_robustness,
)
from trainer.evaluation.image_sources import ArrayImages, FileImages, folder_images
from trainer.evaluation.scores import compare

numbers = st.sets(st.integers(0, 8), max_size=4)


@settings(max_examples=25, deadline=None)
@given(broken=numbers, nonfinite=numbers, batch_size=st.integers(1, 9), top=st.integers(1, 3), seed=st.integers(0, 999))
def test_predictions_equal_those_of_single_paths(
    broken: set[int], nonfinite: set[int], batch_size: int, top: int, seed: int
) -> None:
    model = NumberClassifier.random(9, 3, seed, sorted(nonfinite))
    with tempfile.TemporaryDirectory() as folder:
        paths = write_images(Path(folder), 9, sorted(broken))
        predictions, unreadable = predict(model, paths, batch_size=batch_size, top=top, progress=quiet)
        alone = [predict(model, [path], batch_size=1, top=top, progress=quiet) for path in paths]
    answerable = [number for number in range(9) if number not in broken | nonfinite]
    assert [prediction.path for prediction in predictions] == [paths[number] for number in answerable]
    assert predictions == [prediction for answered, _ in alone for prediction in answered]
    assert {path for path, _ in unreadable} == {paths[number] for number in broken | nonfinite}
    for prediction, number in zip(predictions, answerable, strict=True):
        ranked = sorted(zip(model.table_MK[number].tolist(), model.classes, strict=True), reverse=True)[:top]
        assert prediction == Prediction(paths[number], [(name, probability) for probability, name in ranked])


@settings(max_examples=25, deadline=None)
@given(broken=numbers, batch_size=st.integers(1, 9), seed=st.integers(0, 999), order=st.permutations(range(9)))
def test_each_evaluated_row_has_its_own_label_and_answer(
    broken: set[int], batch_size: int, seed: int, order: list[int]
) -> None:
    models = [NumberClassifier.random(9, 3, seed), NumberClassifier.random(9, 3, seed + 1)]
    with tempfile.TemporaryDirectory() as folder:
        paths = write_images(Path(folder), 9, sorted(broken))
        images = FileImages("test", [paths[number] for number in order], np.array(order, dtype=np.int64) % 3)
        results = evaluate_classifiers(list(models), images, batch_size=batch_size, progress=quiet)
    kept = [row for row, number in enumerate(order) if number not in broken]
    for model, measured in zip(models, results, strict=True):
        assert measured.rows == kept
        assert [path for path, _ in measured.lost] == [paths[number] for number in order if number in broken]
        assert measured.scores.labels_N.tolist() == [order[row] % 3 for row in kept]
        assert np.array_equal(measured.scores.probabilities_NK, model.table_MK[[order[row] for row in kept]])


def test_two_models_are_compared_on_images_that_both_can_read(tmp_path: Path) -> None:
    """Version 1 of the reading rules rejects a file with damaged side data, which version 2 ignores."""
    paths = write_images(tmp_path, 4, broken=[3])
    with_damaged_side_data(Path(paths[1]), 1)
    strict, lenient = NumberClassifier.random(4, 2, 0), NumberClassifier.random(4, 2, 1)
    strict = NumberClassifier(strict.table_MK, reading=1)
    images = FileImages("test", paths, np.array([0, 1, 0, 1]))
    with pytest.raises(DataError):
        evaluate_classifiers([strict], FileImages("test", [paths[1]], np.array([1])), batch_size=4, progress=quiet)
    evaluate_classifiers([lenient], FileImages("test", [paths[1]], np.array([1])), batch_size=4, progress=quiet)
    for models in ([strict, lenient], [lenient, strict]):
        results = evaluate_classifiers(list(models), images, batch_size=4, progress=quiet)
        for model, measured in zip(models, results, strict=True):
            assert measured.rows == [0, 2]
            assert np.array_equal(measured.scores.probabilities_NK, model.table_MK[[0, 2]])
            assert sorted(path for path, _ in measured.lost) == [paths[1], paths[3]]
        compare(*(measured.scores for measured in results))


def with_damaged_side_data(path: Path, number: int) -> None:
    """Write an image whose text is compressed by an unknown method, at which Pillow stops."""
    texts = PngInfo()
    texts.add(b"iTXt", b"Comment\0\x01\x07\0\0text")
    texts.add(b"zTXt", b"Comment\0\x07text")
    numbered_image(number).save(path, pnginfo=texts)


@pytest.mark.parametrize("split", [None, "test", "val", "train"])
def test_each_image_of_a_folder_has_the_class_of_its_folder(tmp_path: Path, split: str | None) -> None:
    """The order of the model's classes counts, which differs from that of the folders here."""
    classes = ("b", "c", "a", "absent")
    for name in ("train", "val", "test"):
        for label in "abc":
            write_images(tmp_path / name / label, 3)
    images = folder_images(tmp_path, classes, split)
    assert len(images.paths) == 9
    for path, label in zip(images.paths, images.labels_N.tolist(), strict=True):
        assert Path(path).parent.name == classes[label]
        assert Path(path).parents[1].name == (split or "test")


def test_files_of_a_layout_are_sorted_and_have_the_class_of_their_folder(tmp_path: Path) -> None:
    for split, letters in (("train", "bca"), ("test", "cb")):
        for letter in letters:
            write_images(tmp_path / split / letter, 3)
    layout = find_layout(tmp_path)
    assert layout.classes == ("a", "b", "c")
    for split, number in (("train", 9), ("test", 6)):
        files = layout.files[split]
        assert [layout.classes[file.label] for file in files] == [file.path.parent.name for file in files]
        assert [file.path for file in files] == sorted((tmp_path / split).rglob("*.png"))
        assert len(files) == number


def test_corrupted_images_keep_their_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of twelve images of different classes is broken; six are used, including the first and the last."""
    paths = write_images(tmp_path, 12, broken=[2])
    answers = np.zeros(64, dtype=np.int64)
    answers[[3, 7, 9]] = [3, 7, 9]  # unchanged
    answers[[20, 23, 27, 29, 31]] = [1, 3, 7, 9, 11]  # brighter by 20
    model = NumberClassifier(np.eye(12, dtype=np.float32)[answers])
    seen: list[tuple[int, int]] = []

    def brighter(pixels_HWC: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
        seen.append((int(pixels_HWC[0, 0, 0]), seed))
        return (pixels_HWC + 20).astype(np.uint8)

    monkeypatch.setattr(measure_module, "CORRUPTIONS", {"light": {"20": brighter}})
    monkeypatch.setattr(measure_module, "_ROBUSTNESS_IMAGES", 6)
    images = FileImages("test", paths, np.arange(12))
    (measured,) = evaluate_classifiers([model], images, batch_size=5, progress=quiet)
    robustness = evaluate_robustness(model, images, measured, batch_size=4, progress=quiet)
    chosen = [0, 3, 5, 7, 9, 11]  # of 0, 1, 3, ... 11 every second one
    assert seen == [(number, place) for place, number in enumerate(chosen)], "each has its own seed"
    unchanged, brightened = {"6 images": pytest.approx(4 / 6)}, {"20": pytest.approx(4 / 6)}  # 0, 3, 7 and 9 are right
    assert robustness == {"none": unchanged, "light": brightened}
    assert measured.scores.accuracy == pytest.approx(4 / 11), "of all readable images"


def grey(side: int) -> NDArray[np.uint8]:
    """One uniformly grey image, uint8 (1, side, side, 3)."""
    return np.full((1, side, side, 3), 128, np.uint8)


@pytest.mark.parametrize("sigma", [10, 20, 40])
def test_noise_has_its_standard_deviation_and_differs_between_images(sigma: int) -> None:
    damage = CORRUPTIONS["noise"][f"sigma {sigma} of 255"]
    noise = corrupt_batch(damage, np.repeat(grey(64), 2, 0), 7).astype(np.float64) - 128
    # 24,576 values: the standard error of their deviation is half a percent, that of their mean 0.6 percent of sigma.
    assert noise.std() == pytest.approx(sigma, rel=0.03)
    assert abs(noise.mean()) < 0.03 * sigma
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.04
    channels = np.corrcoef(noise[0, :, :, 0].ravel(), noise[0, :, :, 1].ravel())
    assert abs(channels[0, 1]) < 0.07, "channels are independent"


@pytest.mark.parametrize("share", [0.01, 0.02, 0.04])
def test_a_blur_spreads_an_edge_by_its_radius(share: float) -> None:
    """The derivative of a blurred edge is the kernel; its standard deviation is the radius."""
    edge = grey(200)
    edge[:, :, :100], edge[:, :, 100:] = 0, 250
    blurred = corrupt_batch(CORRUPTIONS["blur"][f"radius {share:.1%} of the side"], edge, 0)[0, 100, :, 0].astype(float)
    kernel, places = np.diff(blurred) / 250, np.arange(1, 200)
    middle = float((kernel * places).sum())
    assert middle == pytest.approx(100, abs=0.1)
    assert np.sqrt((kernel * (places - middle) ** 2).sum()) == pytest.approx(share * 200, rel=0.1)


@pytest.mark.parametrize("quality", [50, 20, 10])
def test_jpeg_has_its_quality(tmp_path: Path, quality: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "picture.jpg", quality=quality)
    with Image.open(tmp_path / "picture.jpg") as image:
        wanted = np.array(image)
    assert np.array_equal(corrupt_batch(CORRUPTIONS["JPEG"][f"quality {quality}"], noise[None], 0)[0], wanted)


@pytest.mark.parametrize("side", [4, 5])
def test_images_in_memory_are_selected_by_number(side: int) -> None:
    pixels_NHWC = np.stack([np.full((side, side, 3), number, np.uint8) for number in range(6)])
    images = ArrayImages("test", pixels_NHWC, np.arange(6))
    model = NumberClassifier.random(6, 6, 0)
    read: Callable[[], object] = lambda: images.pixels([4, 1], model.decoder)  # noqa: E731
    if side != model.decoder.image_size:
        with pytest.raises(DataError, match="these images are 5 pixels wide, but the model needs 4"):
            read()
        return
    pixels, rows, lost = images.pixels([4, 1], model.decoder)
    assert (pixels[:, 0, 0, 0].tolist(), rows, lost) == ([4, 1], [4, 1], [])
    assert images.title(4) == "test/4"
