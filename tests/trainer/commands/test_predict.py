from __future__ import annotations

import argparse
import codecs
import csv
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

from tests.conftest import TINY, needs_exporter, write_colours
from tests.support.running import train
from trainer.commands.predict import Prediction, add_arguments, as_csv, as_json, as_table, find_images, main, predict
from trainer.config.loader import build_config
from trainer.data.folder.decoder import Decoder
from trainer.errors import CheckpointError, DataError, RunError
from trainer.evaluation.classifier import OnnxClassifier, open_classifier
from trainer.evaluation.tables import csv_text
from trainer.run.folder.run_dir import RunDir
from trainer.session.export_run import ExportOptions, export_run

pytestmark = [needs_exporter, pytest.mark.usefixtures("narrow_module")]


def quiet(_detail: str, _fraction: float | None) -> None:
    """Progress that nobody watches."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, narrow_module: None) -> Callable[[str], tuple[Path, RunDir]]:
    """Trains a run that tells colours apart on pictures of several proportions, and exports it, once for each way to fit."""

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
def photos(made: Callable[[str], tuple[Path, RunDir]], tmp_path: Path) -> Path:
    """The pictures, to be spoilt."""
    return Path(shutil.copytree(made("crop")[0], tmp_path / "photos"))


@pytest.fixture
def model(made: Callable[[str], tuple[Path, RunDir]]) -> str:
    """The exported file."""
    return str(made("crop")[1].export / "model.onnx")


def ask(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return main(parser.parse_args(list(arguments)))


@pytest.mark.parametrize("fit", ["crop", "letterbox"])
def test_run_checkpoint_and_onnx_give_the_same_answers(
    made: Callable[[str], tuple[Path, RunDir]], tmp_path: Path, fit: str
) -> None:
    photos, run = made(fit)
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
    assert len({prediction.ranking[0][1] for prediction in answers[0]}) > 5, "it looks at the pictures"


def test_json_is_a_list_of_objects_in_the_order_of_the_paths(
    photos: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    reversed_order = sorted((str(path) for path in (photos / "test" / "red").iterdir()), reverse=True)
    assert ask(model, *reversed_order, "--format", "json") == 0
    objects = json.loads(capsys.readouterr().out)
    assert [entry["path"] for entry in objects] == reversed_order[::-1]
    assert all(set(entry) == {"path", "class", "probability"} for entry in objects)
    assert all(1 / 3 <= entry["probability"] <= 1 for entry in objects)
    assert ask(model, reversed_order[0], "--format", "csv", "--top", "2") == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert list(row) == ["path", "class", "probability", "class_2", "probability_2"]


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_answered(
    photos: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = photos / "test" / "red" / "005.png"
    broken.write_bytes(broken.read_bytes()[:60])
    assert ask(model, str(photos / "test" / "red"), "--format", "json", "--batch-size", "4") == 1
    said = capsys.readouterr()
    assert len(json.loads(said.out)) == 12
    assert f"{broken}: cannot be read: " in said.err


def test_files_folders_patterns_and_lists_are_found_once(
    photos: Path,
) -> None:
    odd = photos / "test" / "blue" / "a=[1] b.png"
    shutil.copy(photos / "test" / "blue" / "000.png", odd)
    (photos / "test" / "blue" / "notes.txt").write_text("no picture")
    blue, missing = find_images([str(photos / "test" / "blue")])
    assert (len(blue), missing) == (13, [])
    assert find_images([str(odd)]) == ([str(odd)], []), "a file of such a name is no pattern"
    assert find_images([f"{photos}/test/blue/*.png", str(photos / "test" / "blue")]) == (blue, [])
    assert len(find_images([f"{photos}/**/00[01].png"])[0]) == 12


@pytest.mark.parametrize("end", ["\n", "\0", "\r\n"])
@pytest.mark.parametrize(
    "name", ["a\u2028b", "a\x1cb", "a\x85b", "a\x0bb", "a\rb", "\x1c", "a\r", "~a", "a*", "\udce9"]
)
def test_names_of_a_list_end_at_newlines_or_nul_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, end: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (name, "other"):
        Path(path).touch()
    lines = os.fsencode(f"{name}{end}{end}other{end}")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert find_images(["-"]) == (sorted([name, "other"]), [])


def listed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> tuple[list[str], list[str]]:
    """What `predict MODEL -` looks at."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    return find_images(["-"])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_list_of_powershell_is_read_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, end: str
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["caf\u00e9.png", "z.png"]
    for name in names:
        Path(name).touch()
    content = "".join(name + end for name in names).encode(encoding)
    if encoding.endswith("e"):
        with pytest.raises(DataError, match="the list is in UTF-16 without a byte order mark; write it in UTF-8"):
            listed(monkeypatch, content)
        content = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}[encoding] + content
    assert listed(monkeypatch, content) == (names, [])


def test_odd_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").touch()
    Path("b").touch()
    assert listed(monkeypatch, b"a\0b\0") == (["a", "b"], []), "names of one letter, and not UTF-16"
    for empty in (b"", b"\n\n", b"\0", codecs.BOM_UTF8, codecs.BOM_UTF16_LE):
        assert listed(monkeypatch, empty) == ([], ["standard input: contains no names"])
    with pytest.raises(DataError, match="a damaged list in UTF-16: truncated data; write it in UTF-8"):
        listed(monkeypatch, codecs.BOM_UTF16_LE + b"a")


def test_a_named_pipe_or_a_device_is_refused_and_a_pipe_of_the_shell_is_not(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f.png")
    reading, writing = os.pipe()
    own = f"/dev/fd/{reading}"
    odd = [str(tmp_path / "f.png"), "/dev/zero"]
    try:
        assert find_images([own, *odd]) == ([own], [f"{path}: a named pipe or a device, not a file" for path in odd])
    finally:
        os.close(reading)
        os.close(writing)


@given(st.lists(st.lists(st.text(st.sampled_from('a\r\n,"\u2028\x1e ')), min_size=2, max_size=2), min_size=1))
def test_any_text_comes_back_from_a_table(rows: list[list[str]]) -> None:
    assert list(csv.reader(io.StringIO(csv_text(rows), newline=""))) == rows
    assert paths_in_csv(rows) == [row[0] for row in rows]


def paths_in_csv(rows: list[list[str]]) -> list[str]:
    """The paths of predictions that are written as CSV and read again."""
    text = as_csv([Prediction(row[0], [(row[1], 0.5)]) for row in rows])
    return [row[0] for row in csv.reader(io.StringIO(text, newline=""))][1:]


def test_what_is_missing_is_named_and_the_rest_is_answered(
    photos: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (photos / "test" / "empty").mkdir()
    problems = {
        f"{photos}/*.gif": "no file matches", "nowhere.png": "no such file or folder",
        str(photos / "test" / "empty"): "contains no images",
    }  # fmt: skip
    assert ask(model, *problems, f"{photos}/test/*", "--format", "json") == 1
    said = capsys.readouterr()
    assert len(json.loads(said.out)) == 37
    assert len(said.err.splitlines()) == 3
    for path, problem in problems.items():
        assert f"{path}: {problem}\n" in said.err
        with pytest.raises(DataError, match=problem):
            ask(model, path)


def test_a_model_that_does_not_explain_itself_is_refused(model: str, tmp_path: Path) -> None:
    proto = onnx.load(model)
    del proto.metadata_props[:]
    onnx.save(proto, str(tmp_path / "bare.onnx"))
    with pytest.raises(CheckpointError, match="its metadata has no `classes` and `preprocess`"):
        OnnxClassifier(tmp_path / "bare.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(CheckpointError, match="onnxruntime cannot load it"):
        OnnxClassifier(tmp_path / "broken.onnx")
    with pytest.raises(RunError, match=r"nobody: no run of this name(?s:.*)A model is an exported .onnx file"):
        open_classifier("nobody", runs_dir=tmp_path, which="default", device="cpu")


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
def test_metadata_that_cannot_be_are_refused_with_the_reason(
    model: str, tmp_path: Path, key: str, value: object, reason: str
) -> None:
    proto = onnx.load(model)
    facts = {entry.key: entry for entry in proto.metadata_props}
    if key in facts:
        facts[key].value = json.dumps(value)
    else:
        changes = value if isinstance(value, dict) else {key: value}
        facts["preprocess"].value = json.dumps(json.loads(facts["preprocess"].value) | changes)
    onnx.save(proto, str(tmp_path / "odd.onnx"))
    with pytest.raises(CheckpointError, match=f"its metadata cannot be used: .*{re.escape(reason)}"):
        OnnxClassifier(tmp_path / "odd.onnx")


def test_names_are_shown_literally() -> None:
    evil = [Prediction("\x1b[31mred.png", [("cat\x07", 0.75), ("dog", 0.25)])]
    assert as_table(evil) == "?[31mred.png   75.0% cat?   25.0% dog\n"
    assert json.loads(as_json(evil))[0]["top"][1] == {"class": "dog", "probability": 0.25}
    names = [
        f"{text}.png" for text in ("\U0001f3f4\U000e0067\U000e007f", "\U000f0001", "\x9b31m", "\u202e", "\udce9", "été")
    ]
    shown = as_json([Prediction(name, [("cat", 1.0)]) for name in names])
    assert [answer["path"] for answer in json.loads(shown)] == names
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert as_csv([]) == "path,class,probability\n"
    assert json.loads(as_json([])) == []


def test_an_onnx_file_is_asked_without_pytorch(photos: Path, model: str) -> None:
    code = (
        "import sys, tui.cli; tui.cli.main(['predict', *sys.argv[1:]]); "
        "assert not {'torch', 'textual'} & set(sys.modules), 'loaded'"
    )
    command = [sys.executable, "-c", code, model, str(photos / "test"), "--format", "csv"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 + 37


@pytest.mark.parametrize("fit", ["crop", "letterbox"])
def test_the_example_of_the_documentation_gives_the_same_answers(
    made: Callable[[str], tuple[Path, RunDir]], tmp_path: Path, fit: str
) -> None:
    photos, run = made(fit)
    page = (Path(__file__).parents[3] / "docs" / "export.md").read_text()
    code = page.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "example.py").write_text(code)
    paths = [
        path for path in find_images([str(photos / "test")])[0] if path.endswith("0.png") or path.endswith("5.png")
    ]
    model = str(run.export / "model.onnx")
    done = subprocess.run([sys.executable, str(tmp_path / "example.py"), model, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours, _ = predict(OnnxClassifier(Path(model)), paths, batch_size=8, top=1, progress=quiet)
    theirs = [line.rsplit(" ", 2) for line in done.stdout.splitlines()]
    assert len(theirs) == len(paths) > 5
    for prediction, (path, name, probability) in zip(ours, theirs, strict=True):
        ((our_name, our_probability),) = prediction.ranking
        assert (path, name) == (prediction.path, our_name)
        assert float(probability) == pytest.approx(our_probability, abs=1e-3)


class RecordingSession:
    """In place of onnxruntime's: says what a file would say, and keeps what it is asked."""

    facts: ClassVar[dict[str, str]] = {}
    asked: ClassVar[list[NDArray[np.float32]]] = []

    def __init__(self, _model: str) -> None:
        self.custom_metadata_map = self.facts

    def get_modelmeta(self) -> RecordingSession:
        return self

    def run(self, _outputs: None, inputs: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        self.asked.append(inputs["input"])
        return [np.zeros((1, 2), np.float32)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    width=st.integers(1, 300), height=st.integers(1, 300), side=st.integers(8, 64),
    crop_pct=st.sampled_from([0.875, 0.95, 1.0, 0.5, 0.33]), fit=st.sampled_from(["crop", "letterbox"]),
)  # fmt: skip
def test_the_client_of_the_documentation_sees_the_same_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, height: int, side: int, crop_pct: float, fit: str
) -> None:
    decoder = Decoder(image_size=side, crop_pct=crop_pct, fit=fit)
    preprocess = {"size": side, **decoder.description, "mean": [0.0] * 3, "std": [1 / 255] * 3}
    RecordingSession.facts = {"classes": '["a", "b"]', "preprocess": json.dumps(preprocess)}
    RecordingSession.asked.clear()
    pixels = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    code = (
        (Path(__file__).parents[3] / "docs" / "export.md").read_text().partition("```python\n")[2].partition("```")[0]
    )
    (tmp_path / "example.py").write_text(code)
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(InferenceSession=RecordingSession))
    monkeypatch.setattr(sys, "argv", ["example.py", "model.onnx", str(tmp_path / "picture.png")])
    runpy.run_path(str(tmp_path / "example.py"))
    (asked_NCHW,) = RecordingSession.asked
    assert np.array_equal(asked_NCHW[0].transpose(1, 2, 0).round(), decoder(tmp_path / "picture.png"))
