"""A run as one self-contained page: curves, classes, confusion, mistakes. No script and no external resources."""

from __future__ import annotations

import argparse
import base64
import io
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import EXIT_OK, DiskError
from trainer.evaluation.heat import coloured
from trainer.evaluation.picture_sheet import Sheet, heat_of, read_sheet, resized
from trainer.host.atomic_files import write_atomically
from trainer.host.standard_streams import write_out
from trainer.options import add_runs_dir
from trainer.run.diagnosis.diagnose import verdicts
from trainer.run.folder.run_dir import RunDir, find_run
from trainer.run.log.reader import LogReader
from trainer.run.view.run_view import RunView
from tui.drawing import format as fmt
from tui.drawing.step_axis import step_labels
from tui.drawing.svg_curves import WIDTH, Curve, svg
from tui.state.class_results import ClassResult, class_results, worst_pairs
from tui.state.run_port import fold_new_events
from tui.state.summary import summary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MATRIX_CLASSES = 40  # above this the matrix is too fine to read, and only the worst pairs are listed

_STYLE = """
:root { color-scheme: light dark; --text: #1f2328; --back: #fff; --dim: #5b6470; --faint: #e3e7ec; --train: #005fb8;
  --raw: #a9c4de; --test: #a84f00; --warn: #8a5a00; --bad: 198, 40, 40; }
@media (prefers-color-scheme: dark) { :root { --text: #d7dce4; --back: #11141a; --dim: #8b93a1; --faint: #262c36;
  --train: #5fb3f9; --raw: #33546f; --test: #f2a65a; --warn: #f5c25b; --bad: 255, 107, 107; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 84rem;
  margin: 2rem auto; padding: 0 min(1.5rem, 4vw); }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; } .dim, .tick { color: var(--dim); fill: var(--dim); }
pre { overflow-x: auto; white-space: pre-wrap; } .plots { display: flex; flex-wrap: wrap; gap: 1.5rem; }
.wide { overflow-x: auto; } figure { margin: 0; flex: 1 1 30rem; min-width: 0; max-width: 41rem; }
figcaption { font-weight: 600; } svg { width: 100%; height: auto; }
.tick { font-size: 12px; } .grid { stroke: var(--faint); } .raw { stroke: var(--raw); fill: none; }
.train { stroke: var(--train); stroke-width: 1.6; fill: none; } .test { fill: var(--test); } .warn { color: var(--warn); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .15rem .6rem; text-align: right; white-space: nowrap; }
td:first-child, th:first-child, .left { text-align: left; } th { color: var(--dim); font-weight: 500; }
.bar { background: var(--faint); width: min(12rem, 25vw); height: .7rem; display: inline-block; }
.bar > i { background: var(--test); height: 100%; display: block; } .own { color: var(--test); font-weight: 600; }
.tiles { display: flex; flex-wrap: wrap; gap: 1rem; } .tiles div { width: 8.5rem; font-size: .85rem; overflow-wrap: anywhere; }
.tiles img { width: 8rem; height: 8rem; image-rendering: pixelated; display: block; }
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `report`."""
    parser.add_argument("run", metavar="RUN", help="a run directory, a name, or latest")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="output file (default: report.html in the run directory)"
    )
    add_runs_dir(parser)


def main(given: argparse.Namespace) -> int:
    """Write the page of a run; R18Error when there is no such run, or the page cannot be written."""
    run_dir = find_run(given.run, given.runs_dir)
    write_out(f"wrote {write_report(run_dir, given.output)}\n")
    return EXIT_OK


def write_report(run_dir: RunDir, output: Path | None) -> Path:
    """Write the report of a run, by default into its directory, and return its path; DiskError if that fails."""
    view, target = fold_new_events(RunView(), LogReader(run_dir.events)), output or run_dir.report
    try:
        write_atomically(target, html_report(view, run_dir).encode(), private=output is None)
    except OSError as error:
        raise DiskError(
            f"{target}: cannot be written: {error.strerror or error}; choose a place with -o FILE"
        ) from error
    return target


def html_report(view: RunView, run_dir: RunDir) -> str:
    """The whole page as HTML. Pictures and configuration are read from the run directory."""
    name = _safe(run_dir.name)
    body = [
        f"<h1>{name}</h1>", _identity(view), f"<pre>{_safe(chr(10).join(summary(view, run_dir)))}</pre>", _problems(view),
        _curves(view), _classes(view), _confusion(view), *_pictures(view, run_dir), _messages(view), _configuration(run_dir),
        f'<p class="dim">Written by r18-tui on {time.strftime("%Y-%m-%d %H:%M")}.</p>',
    ]  # fmt: skip
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{name}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><style>{_STYLE}</style>'
    )
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'


def _safe(text: str) -> str:
    """Escape text from disk for the page."""
    return escape(fmt.printable(text, keep="\n"))


def _identity(view: RunView) -> str:
    started = view.started
    if started is None:
        return ""
    images = ", ".join(f"{count:,} {split}" for split, count in started.splits.items())
    parts = [
        f"ResNet-18, {started.model.get('stem', '?')} stem, {fmt.count(float(started.model.get('parameters', 0)))} parameters",
        str(started.device.get("name", "?")), str(started.choices.get("precision", "?")), f"images: {images}",
        *(f"{name} {version}" for name, version in started.versions.items() if name in ("torch", "r18-tui")),
    ]  # fmt: skip
    return f'<p class="dim">{_safe(" · ".join(parts))}</p>'


def _problems(view: RunView) -> str:
    found = [
        f"<li><b>{_safe(said.text)}</b>: {_safe(said.evidence)}; {_safe(said.remedy)}</li>" for said in verdicts(view)
    ]
    return f'<ul class="warn">{"".join(found)}</ul>' if found else ""


def _curves(view: RunView) -> str:
    total = float(max(view.total_steps, view.step, 1))
    labels = step_labels(view, 0.0, total, WIDTH // 7, axis="epoch")
    split = view.selection_split
    losses, accuracies = view.eval_loss.get(split), view.eval_accuracy.get(split)
    curves = [
        Curve(
            title=f"Loss: training (line), {split} (points)", raw=view.train_loss, smooth=view.smoothed_loss[0.9], total=total,
            points=list(zip(losses.x, losses.y, strict=True)) if losses else [], labels=labels,
        ),
        Curve(
            title=f"Accuracy: training (line), {split} (points)", raw=view.train_accuracy, smooth=view.smoothed_accuracy[0.9],
            points=list(zip(accuracies.x, accuracies.y, strict=True)) if accuracies else [], labels=labels, total=total,
            percent=True,
        ),
        Curve(title="Learning rate", raw=view.lr, labels=labels, total=total),
    ]  # fmt: skip
    if not len(view.train_loss):
        return "<p>No step was taken.</p>"
    figures = [f"<figure><figcaption>{_safe(curve.title)}</figcaption>{svg(curve)}</figure>" for curve in curves]
    return f'<div class="plots">{"".join(figures)}</div>'


def _classes(view: RunView) -> str:
    results = class_results(view)
    if not results:
        return ""
    names = view.class_names(len(results))
    heads = ("class", "accuracy (recall)", "", "95 %", "precision", "images", "confused with")
    rows = [_class_row(result, names) for result in results]
    return f"<h2>Classes on {_safe(view.selection_split)}, the worst first</h2>{_table(heads, rows)}"


def _class_row(result: ClassResult, names: Sequence[str]) -> list[str]:
    score = result.score
    low, high = score.interval or (0.0, 0.0)
    taken = ", ".join(f"{names[other]} {100 * count / score.images:.1f} %" for other, count in score.confusions[:4])
    return [
        f"<td>{_safe(result.name)}</td>",
        f"<td>{fmt.percent(score.recall, 2)}</td>",
        f'<td><span class="bar"><i style="width: {100 * (score.recall or 0.0):.1f}%"></i></span></td>',
        f"<td>{fmt.percent(low)} to {fmt.percent(high)}</td>" if score.interval else "<td></td>",
        f"<td>{fmt.percent(score.precision, 2)}</td>",
        f"<td>{score.images:,}</td>",
        f'<td class="left">{_safe(taken)}</td>',
    ]


def _confusion(view: RunView) -> str:
    results = sorted(class_results(view), key=lambda result: result.label)
    if not any(result.score.confusions for result in results):
        return ""
    parts = []
    if len(results) <= _MATRIX_CLASSES:
        parts.append("<h2>Confusion: true class down, answer across</h2>")
        rows = [
            [f"<td>{_safe(result.name)}</td>", *(_cell(result, other.label) for other in results)] for result in results
        ]
        parts.append(_table(("", *(result.name for result in results)), rows))
    worst = [_pair_row(*pair) for pair in worst_pairs(results)[:30]]
    return "".join([*parts, "<h2>Worst pairs</h2>", _table(("true", "answer", "images", "of the class"), worst)])


def _pair_row(share: float, count: int, true: str, answer: str) -> list[str]:
    names = [f"<td>{_safe(true)}</td>", f'<td class="left">{_safe(answer)}</td>']
    return [*names, f"<td>{count:,}</td>", f"<td>{100 * share:.1f} %</td>"]


def _cell(result: ClassResult, other: int) -> str:
    if other == result.label:
        return f'<td class="own">{result.score.correct:,}</td>'
    count = result.predicted_as(other)
    share = (count or 0) / max(result.score.images, 1)
    shown = "?" if count is None else count or ""
    return f'<td style="background: rgba(var(--bad), {min(4 * share, 0.8):.2f})">{shown}</td>'


def _pictures(view: RunView, run_dir: RunDir) -> list[str]:
    found = []
    split = view.selection_split
    for key, title, path in (
        (("mistakes", split), f"Most confident mistakes on {split}", run_dir.mistakes(split)),
        (("training", "train"), "Training images as the network sees them", run_dir.training_images),
    ):
        caption = view.pictures.get(key)
        if caption is not None and caption.images:
            try:
                sheet = read_sheet(path)
            except (OSError, ValueError) as error:
                found.append(f"<h2>{_safe(title)}</h2><p>{_safe(f'{path.name} cannot be read: {error}')}</p>")
                continue
            tiles = "".join(_tile(sheet, index) for index in range(len(sheet.captions)))
            found.append(f'<h2>{_safe(title)}</h2><div class="tiles">{tiles}</div>')
    return found


def _tile(sheet: Sheet, index: int) -> str:
    """A picture, below it the places that speak for its class, and its caption."""
    caption: dict[str, Any] = sheet.captions[index]
    pixels_HWC, heat_YX = sheet.pixels_NHWC[index], heat_of(caption)
    images = _image(pixels_HWC) + ("" if heat_YX is None else _image(coloured(pixels_HWC, heat_YX)))
    words = str(caption.get("class", "?"))
    if "predicted" in caption:
        words += f" as {caption['predicted']} {100 * float(caption.get('confidence', 0)):.0f} %"
    elif "mixed_with" in caption:
        percent = round(100 * float(caption.get("share", 1)))
        words = f"{percent} % {words}, {100 - percent} % {caption['mixed_with']}"
    name = f'<span class="dim">{_safe(str(caption.get("name", "")))}</span>'
    return f"<div>{images}{_safe(words)}<br>{name}</div>"


def _image(pixels_HWC: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    resized(pixels_HWC, min(pixels_HWC.shape[0], 64)).save(file, "png")
    source = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="" src="data:image/png;base64,{source}">'


def _messages(view: RunView) -> str:
    notes = list(view.notes)[-200:]
    lines = "\n".join(f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(note.time))}  {note.text}" for note in notes)
    return f"<details><summary>Messages</summary><pre>{_safe(lines)}</pre></details>" if notes else ""


def _configuration(run_dir: RunDir) -> str:
    try:
        text = run_dir.config.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return f"<details><summary>Configuration</summary><pre>{_safe(text)}</pre></details>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_safe(text)}</th>" for text in heads)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'
