"""Text left in the scrollback after the dashboard: results, file locations, and the curves in plain text."""

from __future__ import annotations

import math

from trainer.run.diagnosis.diagnose import verdicts
from trainer.run.folder.lock import is_live, stopped_pid
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.event import number
from trainer.run.log.result_events import EpochEnded
from trainer.run.view.run_view import RunView
from tui.drawing import format as fmt

_PLOT_WIDTH = 76


def summary(view: RunView, run_dir: RunDir) -> list[str]:
    """A few lines on the status of the run."""
    lines = [f"{fmt.printable(run_dir.name)}: {_ending(view)}", *_results(view)]
    saved = next((path for e in reversed(view.checkpoints) if (path := run_dir.path / e.path).is_file()), None)
    if saved:
        lines.append(f"  checkpoint   {saved}")
    if view.exported:
        lines.append(f"  ONNX         {run_dir.path / view.exported.path}")
    if not view.failure or run_dir.path.exists():  # a run that was refused leaves no directory
        lines.append(f"  run          {run_dir.path}")
    return [*lines, *_next_commands(view, run_dir)]


def _results(view: RunView) -> list[str]:
    last, best, lines = view.last_evaluation, view.best, []
    if last:
        tta = f", flip-TTA {last.accuracy_tta:.2%}" if last.accuracy_tta is not None else ""
        lines.append(
            f"  {last.split} accuracy {last.accuracy:.2%}{tta}, loss {number(last.loss):.4f} (step {last.step:,})"
        )
    if best and last and best.step != last.step:
        lines.append(f"  {view.best_name}: {best.split} accuracy {best.accuracy:.2%} (step {best.step:,})")
    tested = next((e for e in reversed(view.evaluations) if e.split == "test"), None)
    if tested and last and last.split != "test":
        lines.append(f"  test accuracy {tested.accuracy:.2%} (step {tested.step:,}, chosen on {last.split})")
    if last and last.split == "test" and best:
        lines.append("  best was chosen on the test images that it is evaluated on: there is no val split")
    return lines


def _next_commands(view: RunView, run_dir: RunDir) -> list[str]:
    """The next possible actions on the run, with their commands."""
    lines = []
    ended_early = view.finish is not None and view.finish.reason == "stopped early"
    if view.finish is None and is_live(run_dir):
        lines.append(f"  come back    {run_dir.attach_command()}")
        pid = stopped_pid(run_dir)
        if pid:
            lines.append(f"  stopped      by a signal; to continue it: kill -CONT {pid}")
    elif view.failure is None and view.started and _current_step(view) < view.total_steps and not ended_early:
        lines.append(f"  resume with  {run_dir.resume_command()}")
    if view.failure:
        lines += [f"  {fmt.printable(line)}" for line in view.failure.error.split("\n")]
        if view.failure.resume:
            lines.append(f"  resume with  {view.failure.resume}")
    return lines


def plain_report(view: RunView, run_dir: RunDir) -> str:
    """The summary, problems, a table of the newest epochs, and the loss drawn by plotext (if it is installed)."""
    lines = summary(view, run_dir)
    lines += [f"  look at      {fmt.printable(said.text)}: {said.evidence}; {said.remedy}" for said in verdicts(view)]
    lines += [f"  note         step {mark.step:,}: {fmt.printable(mark.text)}" for mark in view.user_notes]
    lines.append("")
    lines += [_epoch_line(view, event) for event in view.epochs[-10:]]
    plot = loss_plot(view)
    return "\n".join([*lines, "", plot] if plot else lines) + "\n"


def loss_plot(view: RunView) -> str:
    """Training and held-out loss as text; empty without points or without plotext."""
    try:
        import plotext
    except ImportError:  # no wheel for Linux on aarch64
        return ""
    smoothed = view.smoothed_loss[0.9]
    stride = max(len(smoothed) // (2 * _PLOT_WIDTH), 1)
    points = [(x, y) for x, y in zip(smoothed.x[::stride], smoothed.y[::stride], strict=True) if math.isfinite(y)]
    if not points:
        return ""
    figure = plotext.figure
    figure.clear.data()
    figure.draw(figure.signal([x for x, _ in points], [y for _, y in points], marker="braille").lines(True))
    held_out = view.eval_loss.get(view.selection_split)
    if held_out and len(held_out):
        figure.draw(figure.signal(list(held_out.x), list(held_out.y), marker="o"))
    text: str = figure.build().string(colorless=True)
    return text


def _epoch_line(view: RunView, event: EpochEnded) -> str:
    held_out = [e for e in view.evaluations if e.step == event.step and e.trigger != "key"]
    measured = "   ".join(f"{e.split} {number(e.loss):.4f} / {e.accuracy:.2%}" for e in held_out)
    return f"  epoch {event.epoch:>4}  train {number(event.train_loss):.4f} / {number(event.train_accuracy):.2%}   {measured}"


def _current_step(view: RunView) -> int:
    """Step of the run. Not always the newest in the log: a resume that was stopped while preparing is at its checkpoint."""
    return view.finish.step if view.finish else view.step


def _ending(view: RunView) -> str:
    ending = "failed" if view.failure else view.finish.reason if view.finish else view.state.value
    return f"{ending} at step {_current_step(view):,} of {view.total_steps:,}"
