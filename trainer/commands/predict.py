"""`predict MODEL PATH...`: classifies images. Torch-free where the model is an exported file."""

from __future__ import annotations

import argparse
import codecs
import glob
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from trainer.data.folder.decoder import decode_files
from trainer.data.folder.layout import image_paths
from trainer.errors import EXIT_FAILED, EXIT_OK, ConfigError, DataError
from trainer.evaluation.classifier import Classifier, open_classifier
from trainer.evaluation.tables import csv_text
from trainer.host.progress import Progress, progress_bar
from trainer.host.safe_text import json_text, printable
from trainer.host.standard_streams import write_out
from trainer.options import add_runs_dir, add_which, positive

if TYPE_CHECKING:
    from trainer.evaluation.explanations import Explaining, Explanations

_NOT_FINITE = "the model returns NaN or infinity: its weights or its mean and std are damaged"
_WILDCARDS = frozenset("*?[")
_OWN_STREAMS = ("/proc/", "/dev/fd/")  # pipes that a shell has opened for this process

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"),
)  # fmt: skip
"""Encodings by the first bytes of a text; the first match holds. PowerShell writes UTF-16."""


@dataclass(frozen=True)
class Prediction:
    """Ranking of the classes of one image by probability, the most probable first."""

    path: str
    ranking: list[tuple[str, float]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `predict`."""
    parser.add_argument(
        "model", metavar="MODEL", help="an exported .onnx file, a checkpoint, or a run (a directory, a name, latest)"
    )
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        help="pictures, folders, patterns such as '*.jpg', or - for a list on standard input",
    )
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table", help="(default: %(default)s)")
    parser.add_argument(
        "--top", type=positive, default=1, metavar="N", help="show the N most probable classes (default: 1)"
    )
    parser.add_argument("--batch-size", type=positive, default=32, metavar="N", help="pictures at a time (default: 32)")
    parser.add_argument(
        "--explain", type=Path, metavar="DIR",
        help="write each picture with the places that speak for the answer, for a run or checkpoint",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="for a run or checkpoint: auto, cpu, mps, cuda or cuda:N")
    add_which(parser)
    add_runs_dir(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run the command `predict MODEL PATH...`; the exit code is 1 when a file could not be classified."""
    paths, missing = find_images(arguments.paths)
    if missing and not paths:
        raise DataError("\n".join(missing))
    classifier = open_classifier(
        arguments.model, runs_dir=arguments.runs_dir, which=arguments.which, device=arguments.device
    )
    top = min(arguments.top, len(classifier.classes))
    explanations = _explanations(arguments.explain, classifier, arguments.paths)
    with progress_bar() as progress:
        predictions, unreadable = predict(
            classifier, paths, batch_size=arguments.batch_size, top=top, progress=progress, explanations=explanations
        )
    write_out(FORMATS[arguments.format](predictions))
    for path, reason in unreadable:
        problem = "no prediction" if reason == _NOT_FINITE else "cannot be read"
        missing.append(f"{path}: {problem}: {reason}")
    if explanations is not None and explanations.problem:
        missing.append(explanations.problem)
    sys.stderr.writelines(f"{printable(line)}\n" for line in missing)
    return EXIT_FAILED if missing else EXIT_OK


def find_images(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Find all named files, sorted by path, each once; also the arguments that do not exist or hold no images.

    Arguments are files, folders (with everything below), patterns with `*`, or `-` for a list on standard input, one
    per line. DataError when the list is in an encoding that cannot be read.
    """
    found: set[str] = set()
    missing: dict[str, None] = {}
    for argument in arguments:
        names = _listed_names() if argument == "-" else [argument]
        if not names:
            missing["standard input: contains no names"] = None
        for name in names:
            for path in _matches(name):
                try:
                    found.update(_files_of(path))
                except DataError as error:
                    missing[str(error)] = None
    return sorted(found), list(missing)


def _listed_names() -> list[str]:
    """Names on standard input: one per line, or separated by NUL as from `find -print0`, since names may hold newlines."""
    data = sys.stdin.buffer.read()
    encoding = next((encoding for mark, encoding in _BYTE_ORDER_MARKS if data.startswith(mark)), None)
    try:
        text = data.decode(encoding) if encoding else os.fsdecode(data.removeprefix(codecs.BOM_UTF8))
    except UnicodeDecodeError as error:
        raise DataError(f"standard input: a damaged list in {encoding}: {error.reason}; write it in UTF-8") from error
    names = text.split("\0") if "\0" in text else [_without_cr(line) for line in text.split("\n")]
    names = [name for name in names if name.strip() or os.path.lexists(name)]
    # UTF-16 text has as many NULs as letters; a list separated by so many NULs would have names of one letter each.
    if text.count("\0") > len(text) / 3 and not all(map(os.path.lexists, names)):
        raise DataError("standard input: the list is in UTF-16 without a byte order mark; write it in UTF-8")
    return names


def _without_cr(line: str) -> str:
    """A name of a list without a Windows line end, unless a file with the full name exists."""
    return line if os.path.lexists(line) else line.removesuffix("\r")


def _matches(argument: str) -> list[str]:
    """Paths that match an argument with wildcards; any other argument unchanged."""
    path = argument if os.path.lexists(argument) else os.path.expanduser(argument)
    wild = not os.path.lexists(path) and _WILDCARDS & set(path)
    return sorted(glob.glob(path, recursive=True)) or [path] if wild else [path]


def predict(
    classifier: Classifier,
    paths: Sequence[str],
    *,
    batch_size: int,
    top: int,
    progress: Progress,
    explanations: Explanations | None = None,
) -> tuple[list[Prediction], list[tuple[str, str]]]:
    """Classify files; returns predictions in the order of the paths, and the files without one, each with the reason."""
    predictions: list[Prediction] = []
    unreadable: list[tuple[str, str]] = []
    for start in range(0, len(paths), batch_size):
        batch = paths[start : start + batch_size]
        pixels_NHWC, kept, lost = decode_files(classifier.decoder, batch)
        unreadable += lost
        if kept:
            names = [batch[index] for index in kept]
            probabilities_NK = classifier.probabilities(pixels_NHWC)
            finite_N = np.asarray(np.isfinite(probabilities_NK).all(1))
            unreadable += [(name, _NOT_FINITE) for name, finite in zip(names, finite_N, strict=True) if not finite]
            names = [name for name, finite in zip(names, finite_N, strict=True) if finite]
            ranked = _ranked(names, probabilities_NK[finite_N], classifier.classes, top)
            if explanations is not None and ranked:
                explanations.write(
                    [one.path for one in ranked], pixels_NHWC[finite_N], [one.ranking[0][0] for one in ranked]
                )
            predictions += ranked
        progress("predicting", min(start + batch_size, len(paths)) / len(paths))
    return predictions, unreadable


def _explanations(folder: Path | None, classifier: Classifier, inputs: Sequence[str]) -> Explanations | None:
    """The writer of explanations; ConfigError when the model cannot explain, or the folder is none for them."""
    if folder is None:
        return None
    for name in inputs:
        if os.path.isdir(name) and folder.resolve().is_relative_to(Path(name).resolve()):
            raise ConfigError(
                f"--explain: {folder} is inside {name}, whose pictures these would become; give another folder"
            )
    if not hasattr(classifier, "explain"):
        raise ConfigError(
            f"{classifier.origin}: an exported file gives answers without reasons; for --explain give the run or a checkpoint"
        )
    from trainer.evaluation.explanations import Explanations

    try:
        return Explanations(folder, cast("Explaining", classifier))
    except OSError as error:
        raise ConfigError(f"--explain: {folder}: cannot be created: {error.strerror or error}") from error


def as_table(predictions: Sequence[Prediction]) -> str:
    """Format as a table: one line per image with path, class, probability and further classes."""
    if not predictions:
        return ""
    width = max(len(printable(prediction.path)) for prediction in predictions)
    return "".join(
        f"{printable(prediction.path):{width}}  "
        + "  ".join(f"{probability:6.1%} {printable(name)}" for name, probability in prediction.ranking)
        + "\n"
        for prediction in predictions
    )


def as_csv(predictions: Sequence[Prediction]) -> str:
    """Format as CSV with a header; further classes have columns of their own."""
    top = len(predictions[0].ranking) if predictions else 1
    more = [f"{column}_{place}" for place in range(2, top + 1) for column in ("class", "probability")]
    rows: list[list[object]] = [["path", "class", "probability", *more]]
    for prediction in predictions:
        cells = [cell for name, probability in prediction.ranking for cell in (name, f"{probability:.6f}")]
        rows.append([prediction.path, *cells])
    text = csv_text(rows)
    return printable(text, keep="\n") if sys.stdout.isatty() else text


def as_json(predictions: Sequence[Prediction]) -> str:
    """Format as a list of objects with `path`, `class`, `probability`, and for several classes `top`, a list of pairs."""
    objects = []
    for prediction in predictions:
        ranking = [{"class": name, "probability": round(probability, 6)} for name, probability in prediction.ranking]
        objects.append({"path": prediction.path, **ranking[0], **({"top": ranking} if len(ranking) > 1 else {})})
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return json_text(objects, ascii_only=not unicode) + "\n"


FORMATS = {"table": as_table, "csv": as_csv, "json": as_json}  # output formats, by the name in `--format`


def _files_of(path: str) -> list[str]:
    """Files that a path names; DataError when there is none."""
    if os.path.isdir(path):
        images = [str(image) for image in image_paths(Path(path))]
        if not images:
            raise DataError(f"{path}: contains no images")
        return images
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.realpath(path).startswith(_OWN_STREAMS)):
        raise DataError(f"{path}: a named pipe or a device, not a file")
    if os.path.lexists(path):
        return [path]
    raise DataError(f"{path}: {'no file matches' if _WILDCARDS & set(path) else 'no such file or folder'}")


def _ranked(
    names: list[str], probabilities_NK: NDArray[np.float32], classes: tuple[str, ...], top: int
) -> list[Prediction]:
    order_NT = np.argsort(-probabilities_NK, axis=1, kind="stable")[:, :top]
    return [
        Prediction(name, [(classes[label], float(row[label])) for label in labels])
        for name, row, labels in zip(names, probabilities_NK, order_NT.tolist(), strict=True)
    ]
