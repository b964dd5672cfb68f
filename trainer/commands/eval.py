"""`eval MODEL [MODEL]`: evaluates a model on labelled images, by class; or compares two models."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from trainer.errors import EXIT_FAILED, EXIT_OK, ConfigError, DataError
from trainer.evaluation.classifier import Classifier, open_classifier
from trainer.evaluation.classifier_evaluation import evaluate_classifiers, evaluate_robustness
from trainer.evaluation.evaluation_report import comparison_lines, report_lines, write_comparison, write_report
from trainer.evaluation.image_sources import FileImages, LabelledImages, folder_images
from trainer.host.progress import progress_bar
from trainer.host.standard_streams import write_lines
from trainer.options import add_runs_dir, add_which, positive
from trainer.run.folder.run_dir import RunDir, find_run, refuse_links, run_of_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `eval`."""
    what = "an exported .onnx file, a checkpoint, or a run (a directory, a name, or latest)"
    parser.add_argument("model", metavar="MODEL", help=what)
    parser.add_argument("other", metavar="MODEL", nargs="?", help="another one, to compare the two on the same images")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="class folders, or splits of them (default: the run's held-out images)"
    )
    parser.add_argument(
        "--split", choices=("test", "val", "train"), help="(default: test, or val where there is no test)"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="output folder (default: eval/ of the run)")
    parser.add_argument("--no-robustness", action="store_true", help="skip the noise/blur/JPEG test")
    parser.add_argument("--batch-size", type=positive, default=64, metavar="N", help="images at a time (default: 64)")
    parser.add_argument("--device", default="auto", help="for a run or checkpoint: auto, cpu, mps, cuda or cuda:N")
    add_which(parser)
    add_runs_dir(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run the command `eval MODEL [MODEL]`; the exit code is 1 when a model returns non-finite values."""
    names = [arguments.model, *([arguments.other] if arguments.other else [])]
    models = [
        open_classifier(name, runs_dir=arguments.runs_dir, which=arguments.which, device=arguments.device)
        for name in names
    ]
    if len({model.classes for model in models}) > 1:
        raise ConfigError(
            f"{names[1]}: has other classes than {names[0]}, so the two cannot be compared: "
            f"{', '.join(models[0].classes)} and {', '.join(models[1].classes)}"
        )
    run_dirs = [run_of(name, arguments.runs_dir) for name in names]
    run_dir = run_dirs[0]
    images = _images(arguments, run_dir, models[0])
    if arguments.split != "train":
        images.remarks.extend(_seen(images, names, run_dirs))
    with progress_bar() as progress:
        results = evaluate_classifiers(models, images, batch_size=arguments.batch_size, progress=progress)
        robustness = None
        if len(models) == 1 and not arguments.no_robustness:
            robustness = evaluate_robustness(
                models[0], images, results[0], batch_size=arguments.batch_size, progress=progress
            )
    code = EXIT_FAILED if any(result.scores.num_nonfinite for result in results) else EXIT_OK
    if len(models) == 2:
        write_lines(comparison_lines(models, images, results))
        if arguments.output:
            _written(arguments.output, lambda: write_comparison(arguments.output, models, images, results))
        return code
    write_lines(report_lines(models[0], images, results[0], robustness))
    folder = arguments.output or (run_dir.evaluation / _folder_name(arguments, images) if run_dir else None)
    if folder is None:
        write_lines(["the model belongs to no run, so no files are written; give a folder with -o DIR"])
        return code
    if run_dir and not arguments.output:
        refuse_links(run_dir)
    _written(folder, lambda: write_report(folder, models[0], images, results[0], robustness))
    return code


def _written(folder: Path, write: Callable[[], None]) -> None:
    try:
        write()
    except OSError as error:
        raise DataError(f"{folder}: the report cannot be written: {error.strerror or error}") from error
    write_lines([f"written to {folder}"])


def _folder_name(arguments: argparse.Namespace, images: LabelledImages) -> str:
    """Name of the folder in the run's `eval/`: results on other images, or of an export, get their own."""
    parts = [f"data-{images.name}" if arguments.data is not None else images.name]
    if Path(arguments.model).expanduser().is_file():
        parts.append(Path(arguments.model).stem)
    return re.sub(r"[^\w.-]+", "-", "-".join(parts))


def _seen(images: LabelledImages, names: list[str], run_dirs: list[RunDir | None]) -> list[str]:
    """Warnings about models that were trained on some of these images."""
    if not isinstance(images, FileImages) or not any(run_dirs):
        return []
    from trainer.evaluation.run_images import num_trained_on

    remarks = []
    for name, run_dir in zip(names, run_dirs, strict=True):
        number = 0 if run_dir is None else num_trained_on(run_dir, images.paths)
        if number:
            remarks.append(
                f"{name} was trained on {number:,} of these {len(images.labels_N):,} images, which inflates its accuracy"
            )
    return remarks


def run_of(model: str, runs_dir: Path) -> RunDir | None:
    """The run that a model belongs to: the run itself, or the run of an export or checkpoint."""
    path = Path(model).expanduser()
    return run_of_file(path) if path.is_file() else find_run(model, runs_dir)


def _images(arguments: argparse.Namespace, run_dir: RunDir | None, model: Classifier) -> LabelledImages:
    if arguments.data is not None:
        return folder_images(arguments.data.expanduser(), model.classes, arguments.split)
    if run_dir is None:
        raise ConfigError(f"{arguments.model}: belongs to no run; give images with known classes: --data DIR")
    from trainer.evaluation.run_images import held_out_images

    return held_out_images(run_dir, arguments.split, model.classes)
