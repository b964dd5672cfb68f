"""`predict`: the same answers from run, checkpoint and exported file; lists of files, output formats, bad models."""

from __future__ import annotations

import argparse
import csv
import errno
import functools
import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import TINY, FolderMaker, needs_exporter, write_colours
from tests.support.progress import quiet
from tests.support.running import train
from trainer.commands.predict import (
    Prediction,
    _explanations,
    add_arguments,
    as_csv,
    as_json,
    as_table,
    find_images,
    main,
    predict,
)
from trainer.config.loader import build_config
from trainer.data.folder.decoder import Decoder
from trainer.errors import CheckpointError, ConfigError, DataError, RunError
from trainer.evaluation.classifier import OnnxClassifier, open_classifier
from trainer.evaluation.tables import csv_text
from trainer.run.folder.run_dir import RunDir
from trainer.session.export_run import ExportOptions, export_run

pytestmark = [needs_exporter, pytest.mark.usefixtures("narrow_module")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, narrow_module: None) -> Callable[[str], tuple[Path, RunDir]]:
    """Trains a run that distinguishes colours on images of several proportions and exports it, once for each `data.fit`."""

    @functools.cache
    def make(fit: str) -> tuple[Path, RunDir]:
        base = tmp_path_factory.mktemp(fit)
        write_colours(base / "photos", size=(20, 34))
        Image.fromarray(np.full((70, 9, 4), 120, np.uint8)).save(base / "photos" / "test" / "red" / "tall.png")
        settings = (
            "data.kind=imagefolder", f"data.root={base / 'photos'}", "data.image_size=16", "data.crop_pct=0.8", f"data.fit={fit}",
            "train.epochs=6", "optim.lr=0.01",
        )  # fmt: skip
        run = train(build_config({}, {}, "test", [*TINY, *settings]), base / "runs").run.run_dir
        export_run(run, ExportOptions(which="latest"), lambda _: None)
        return base / "photos", run

    return make


@pytest.fixture
def photos(trained: Callable[[str], tuple[Path, RunDir]], tmp_path: Path) -> Path:
    """A copy of the images."""
    return Path(shutil.copytree(trained("crop")[0], tmp_path / "photos"))


@pytest.fixture
def model(trained: Callable[[str], tuple[Path, RunDir]]) -> str:
    """The exported file."""
    return str(trained("crop")[1].export / "model.onnx")


def run_predict(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return main(parser.parse_args(list(arguments)))


@pytest.mark.parametrize("fit", ["crop", "letterbox"])
def test_run_checkpoint_and_onnx_give_the_same_answers(
    trained: Callable[[str], tuple[Path, RunDir]], tmp_path: Path, fit: str
) -> None:
    photos, run = trained(fit)
    paths, _ = find_images([str(photos / "test")])
    models = (str(run.path), str(run.checkpoints / "step-00000024.safetensors"), str(run.export / "model.onnx"))
    answers = []
    for model in models:
        classifier = open_classifier(model, runs_dir=tmp_path / "runs", which="latest", device="cpu")
        predictions, unreadable = predict(classifier, paths, batch_size=7, top=3, progress=quiet)
        assert unreadable == []
        answers.append(predictions)
    for first, *others in zip(*answers, strict=True):
        for other in others:
            assert other.path == first.path
            assert [name for name, _ in other.ranking] == [name for name, _ in first.ranking]
            assert [p for _, p in other.ranking] == pytest.approx([p for _, p in first.ranking], abs=1e-5)
    assert len({prediction.ranking[0][1] for prediction in answers[0]}) > 5, "the answers depend on the images"


def test_json_is_a_list_of_objects_in_the_order_of_the_paths(
    photos: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    reversed_order = sorted((str(path) for path in (photos / "test" / "red").iterdir()), reverse=True)
    assert run_predict(model, *reversed_order, "--format", "json") == 0
    objects = json.loads(capsys.readouterr().out)
    assert [entry["path"] for entry in objects] == reversed_order[::-1]
    assert all(set(entry) == {"path", "class", "probability"} for entry in objects)
    assert all(1 / 3 <= entry["probability"] <= 1 for entry in objects)
    assert run_predict(model, reversed_order[0], "--format", "csv", "--top", "2") == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert list(row) == ["path", "class", "probability", "class_2", "probability_2"]


def test_an_unreadable_file_is_named_and_the_others_are_answered(
    photos: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = photos / "test" / "red" / "005.png"
    broken.write_bytes(broken.read_bytes()[:60])
    assert run_predict(model, str(photos / "test" / "red"), "--format", "json", "--batch-size", "4") == 1
    printed = capsys.readouterr()
    assert len(json.loads(printed.out)) == 12
    assert f"{broken}: cannot be read: " in printed.err


def test_files_folders_patterns_and_lists_are_found_once(photos: Path) -> None:
    odd = photos / "test" / "blue" / "a=[1] b.png"
    shutil.copy(photos / "test" / "blue" / "000.png", odd)
    (photos / "test" / "blue" / "notes.txt").write_text("no picture")
    blue, missing = find_images([str(photos / "test" / "blue")])
    assert (len(blue), missing) == (13, [])
    assert find_images([str(odd)]) == ([str(odd)], []), "an existing file is not a pattern"
    assert find_images([f"{photos}/test/blue/*.png", str(photos / "test" / "blue")]) == (blue, [])
    assert len(find_images([f"{photos}/**/00[01].png"])[0]) == 12


@given(st.lists(st.lists(st.text(st.sampled_from('a\r\n,"\u2028\x1e ')), min_size=2, max_size=2), min_size=1))
def test_any_text_is_read_back_from_a_csv_table(rows: list[list[str]]) -> None:
    assert list(csv.reader(io.StringIO(csv_text(rows), newline=""))) == rows
    assert paths_in_csv(rows) == [row[0] for row in rows]


def paths_in_csv(rows: list[list[str]]) -> list[str]:
    """The paths of predictions after writing and reading them as CSV."""
    text = as_csv([Prediction(row[0], [(row[1], 0.5)]) for row in rows])
    return [row[0] for row in csv.reader(io.StringIO(text, newline=""))][1:]


def test_missing_files_are_named_and_the_others_are_answered(
    photos: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (photos / "test" / "empty").mkdir()
    problems = {
        f"{photos}/*.gif": "no file matches", "nowhere.png": "no such file or folder",
        str(photos / "test" / "empty"): "contains no images",
    }  # fmt: skip
    assert run_predict(model, *problems, f"{photos}/test/*", "--format", "json") == 1
    printed = capsys.readouterr()
    assert len(json.loads(printed.out)) == 37
    assert len(printed.err.splitlines()) == 3
    for path, problem in problems.items():
        assert f"{path}: {problem}\n" in printed.err
        with pytest.raises(DataError, match=problem):
            run_predict(model, path)


def test_a_model_without_metadata_is_refused(model: str, tmp_path: Path) -> None:
    proto = onnx.load(model)
    del proto.metadata_props[:]
    onnx.save(proto, str(tmp_path / "bare.onnx"))
    with pytest.raises(CheckpointError, match="its metadata has no `classes` and `preprocess`"):
        OnnxClassifier(tmp_path / "bare.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(CheckpointError, match="onnxruntime cannot load it"):
        OnnxClassifier(tmp_path / "broken.onnx")
    with pytest.raises(RunError, match=r"nothing: no run of this name(?s:.*)A model is an exported .onnx file"):
        open_classifier("nothing", runs_dir=tmp_path, which="default", device="cpu")


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("preprocess", [], "preprocess is not a JSON object"), ("preprocess", None, "preprocess is not a JSON object"),
        ("size", 24, "resize: expected 30, found 20"),
        ("sizes", {"size": 24, "resize": 30}, "input is batch x 3 x 16 x 16, expected (3, 24, 24)"), ("size", 0, "image_size"),
        ("size", 16.5, "image_size"), ("size", "16", "image_size"), ("size", None, "image_size"),
        ("crop_pct", 0, "crop_pct"), ("crop_pct", -1, "crop_pct"), ("crop_pct", 1.5, "crop_pct"),
        ("fit", "stretch", "fit: "), ("mean", [0.5], "mean: "), ("mean", "auto", "could not convert"),
        ("mean", [float("nan")] * 3, "mean: "), ("mean", [[0.5] * 3] * 3, "mean: "), ("std", 0.5, "std: "),
        ("std", [0, 1, 1], "std: "), ("std", [1e-50, 1, 1], "std is too small"), ("std", [1e-39] * 3, "std is too small"),
        ("reading", 99, "reading 99 is newer than this version"), ("reading", 0, "reading: "), ("reading", "2", "reading: "),
        ("channel_order", "BGR", "channel_order: expected RGB"), ("pixel_scale", 1, "pixel_scale: expected 0.0039"),
        ("resize", 99, "resize: expected 20, found 99"),
        ("classes", "abcdef", "classes must be a list"), ("classes", ["a"] * 6, "classes must be a list"),
        ("classes", [1, 2, 3, 4, 5, 6], "classes must be a list"), ("classes", {"a": 1}, "classes must be a list"),
        ("classes", ["a"], "expected (1,)"), ("classes", [], "expected (0,)"),
    ],
)  # fmt: skip
def test_invalid_metadata_is_refused_with_the_reason(
    model: str, tmp_path: Path, key: str, value: object, reason: str
) -> None:
    proto = onnx.load(model)
    entries = {entry.key: entry for entry in proto.metadata_props}
    if key in entries:
        entries[key].value = json.dumps(value)
    else:
        changes = value if isinstance(value, dict) else {key: value}
        entries["preprocess"].value = json.dumps(json.loads(entries["preprocess"].value) | changes)
    onnx.save(proto, str(tmp_path / "odd.onnx"))
    with pytest.raises(CheckpointError, match=f"its metadata cannot be used: .*{re.escape(reason)}"):
        OnnxClassifier(tmp_path / "odd.onnx")


def test_names_are_shown_literally() -> None:
    predictions = [Prediction("\x1b[31mred.png", [("cat\x07", 0.75), ("dog", 0.25)])]
    assert as_table(predictions) == "?[31mred.png   75.0% cat?   25.0% dog\n"
    assert json.loads(as_json(predictions))[0]["top"][1] == {"class": "dog", "probability": 0.25}
    names = [
        f"{text}.png" for text in ("\U0001f3f4\U000e0067\U000e007f", "\U000f0001", "\x9b31m", "\u202e", "\udce9", "été")
    ]
    shown = as_json([Prediction(name, [("cat", 1.0)]) for name in names])
    assert [answer["path"] for answer in json.loads(shown)] == names
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert as_csv([]) == "path,class,probability\n"
    assert json.loads(as_json([])) == []


def test_predicting_with_an_onnx_file_does_not_load_pytorch(photos: Path, model: str) -> None:
    code = (
        "import sys, tui.cli; tui.cli.main(['predict', *sys.argv[1:]]); "
        "assert not {'torch', 'textual'} & set(sys.modules), 'loaded'"
    )
    command = [sys.executable, "-c", code, model, str(photos / "test"), "--format", "csv"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 1 + 37


@pytest.mark.parametrize("fit", ["crop", "letterbox"])
def test_the_documented_example_gives_the_same_answers(
    trained: Callable[[str], tuple[Path, RunDir]], tmp_path: Path, fit: str
) -> None:
    photos, run = trained(fit)
    page = (Path(__file__).parents[3] / "docs" / "export.md").read_text()
    code = page.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "example.py").write_text(code)
    paths = [
        path for path in find_images([str(photos / "test")])[0] if path.endswith("0.png") or path.endswith("5.png")
    ]
    model = str(run.export / "model.onnx")
    result = subprocess.run(
        [sys.executable, str(tmp_path / "example.py"), model, *paths], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    ours, _ = predict(OnnxClassifier(Path(model)), paths, batch_size=8, top=1, progress=quiet)
    documented = [line.rsplit(" ", 2) for line in result.stdout.splitlines()]
    assert len(documented) == len(paths) > 5
    for prediction, (path, name, probability) in zip(ours, documented, strict=True):
        ((our_name, our_probability),) = prediction.ranking
        assert (path, name) == (prediction.path, our_name)
        assert float(probability) == pytest.approx(our_probability, abs=1e-3)


class RecordingSession:
    """Stands in for an onnxruntime session: has a file's metadata and records its inputs."""

    metadata: ClassVar[dict[str, str]] = {}
    inputs: ClassVar[list[NDArray[np.float32]]] = []

    def __init__(self, _model: str) -> None:
        self.custom_metadata_map = self.metadata

    def get_modelmeta(self) -> RecordingSession:
        return self

    def run(self, _outputs: None, inputs: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        self.inputs.append(inputs["input"])
        return [np.zeros((1, 2), np.float32)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    width=st.integers(1, 300), height=st.integers(1, 300), side=st.integers(8, 64),
    crop_pct=st.sampled_from([0.875, 0.95, 1.0, 0.5, 0.33]), fit=st.sampled_from(["crop", "letterbox"]),
)  # fmt: skip
def test_the_documented_client_preprocesses_images_like_the_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, height: int, side: int, crop_pct: float, fit: str
) -> None:
    decoder = Decoder(image_size=side, crop_pct=crop_pct, fit=fit)
    preprocess = {"size": side, **decoder.description, "mean": [0.0] * 3, "std": [1 / 255] * 3}
    RecordingSession.metadata = {"classes": '["a", "b"]', "preprocess": json.dumps(preprocess)}
    RecordingSession.inputs.clear()
    pixels = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    code = (
        (Path(__file__).parents[3] / "docs" / "export.md").read_text().partition("```python\n")[2].partition("```")[0]
    )
    (tmp_path / "example.py").write_text(code)
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(InferenceSession=RecordingSession))
    monkeypatch.setattr(sys, "argv", ["example.py", "model.onnx", str(tmp_path / "picture.png")])
    runpy.run_path(str(tmp_path / "example.py"))
    (input_NCHW,) = RecordingSession.inputs
    assert np.array_equal(input_NCHW[0].transpose(1, 2, 0).round(), decoder(tmp_path / "picture.png"))


def test_explanations_are_pictures_beside_their_heat(
    trained: Callable[[str], tuple[Path, RunDir]], make_folder: FolderMaker, tmp_path: Path
) -> None:
    run = trained("crop")[1]
    root = make_folder("more")
    shutil.copytree(root / "test" / "red", root / "again")
    paths = [
        str(root / "test" / "red" / "000.png"),
        str(root / "again" / "000.png"),
        str(root / "test" / "blue" / "001.png"),
    ]
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert main(parser.parse_args([str(run.path), *paths, "--explain", str(tmp_path / "why")])) == 0
    assert [path.name for path in sorted((tmp_path / "why").iterdir())] == [
        "000-red (2).png", "000-red.png", "001-blue.png",
    ]  # fmt: skip
    classifier = open_classifier(str(run.path), runs_dir=tmp_path, which="default", device="cpu")
    seen = classifier.decoder(paths[2])
    with Image.open(tmp_path / "why" / "001-blue.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    side = pixels.shape[0]
    assert pixels.shape == (side, 2 * side, 3)
    assert np.array_equal(pixels[:: side // len(seen), : side : side // len(seen)], seen)
    assert not np.array_equal(pixels[:, :side], pixels[:, side:])


def test_an_exported_file_gives_no_explanations(model: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gives answers without reasons"):
        _explanations(tmp_path / "why", OnnxClassifier(Path(model)), [])
    assert not (tmp_path / "why").exists()


def test_explanations_inside_the_pictures_are_refused(
    trained: Callable[[str], tuple[Path, RunDir]], photos: Path
) -> None:
    with pytest.raises(ConfigError, match="whose pictures these would become"):
        run_predict(str(trained("crop")[1].path), str(photos), "--explain", str(photos / "why"))
    assert not (photos / "why").exists()


def test_a_full_disk_ends_the_explanations_not_the_answers(
    trained: Callable[[str], tuple[Path, RunDir]], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("trainer.evaluation.explanations.write_atomically", full)
    pictures = [str(path) for path in sorted(photos.rglob("*.png"))[:3]]
    assert run_predict(str(trained("crop")[1].path), *pictures, "--explain", str(tmp_path / "why")) == 1
    printed = capsys.readouterr()
    assert all(picture in printed.out for picture in pictures)
    assert "why: no more pictures can be written: No space left" in printed.err
