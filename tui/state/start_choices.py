"""What there is to begin with: runs to go on with, shipped configurations, own images. Pure, but for looking at files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainer.config.loader import shipped_configs_dir, shipped_names
from trainer.run.folder.lock import is_live
from trainer.run.folder.run_dir import RunDir, list_runs

_RUNS_SHOWN = 5

_OWN_IMAGES = (
    "Fine-tune on pictures of your own: class folders, with or without train/, val/ and test/. The folder is looked at, and a "
    "configuration that explains its choices is written here."
)

FOLDER = "own images"
ALL_RUNS = "all runs"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Something to begin with.

    Attributes:
        heading: What it belongs to.
        label: In the list.
        about: What it is, in lines.
        command: Arguments of `r18-tui` that do it at once; empty where something has to be chosen before.
        config: The configuration whose settings can be looked at before; empty for others.
    """

    heading: str
    label: str
    about: str
    command: tuple[str, ...] = ()
    config: str = ""


def choices(runs_dir: Path) -> list[Choice]:
    """All there is, the likeliest first: runs that are being trained, then what to train, then other runs."""
    runs = list_runs(runs_dir)
    live = [run for run in runs if is_live(run)]
    found = [_live(run) for run in live]
    found += [_config(name) for name in ("digits", *(name for name in shipped_names() if name != "digits"))]
    found.append(Choice(heading="train", label=f"{FOLDER} ...", about=_OWN_IMAGES))
    ended = [run for run in runs if run not in live]
    found += [_ended(run) for run in ended[:_RUNS_SHOWN]]
    if runs:
        about = "Every run of the folder: how it stands; the curves of several in one plot; open, resume, delete."
        command = ("runs", "--runs-dir", str(runs_dir))
        found.append(Choice(heading="look at", label=f"{ALL_RUNS} ({len(runs):,})", about=about, command=command))
    return found


def _config(name: str) -> Choice:
    """A shipped configuration; what its first lines say of it."""
    text = (shipped_configs_dir() / f"{name}.yaml").read_text(encoding="utf-8")
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return Choice(heading="train", label=name, about=_paragraphs(lines), command=(name,), config=name)


def _paragraphs(lines: list[str]) -> str:
    """Lines of a comment joined, but for those that begin something new."""
    text = ""
    for line in lines:
        begins = line.split(":")[0] in ("Reaches", "Recipe", "Source")
        text += f"\n\n{line}" if begins and text else f" {line}" if text else line
    return text


def _live(run: RunDir) -> Choice:
    return Choice(
        heading="in training", label=run.name, about=f"Come back to it, with all its keys.\n\n{run.path}",
        command=("attach", str(run.path)),
    )  # fmt: skip


def _ended(run: RunDir) -> Choice:
    about = f"Look at it; from there r and r again go on with it, if it is not complete.\n\n{run.path}"
    return Choice(heading="look at", label=run.name, about=about, command=("show", str(run.path)))
