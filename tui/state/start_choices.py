"""Choices of the start screen: runs to resume, shipped configurations, own images. Pure, except for reading files."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from trainer.config.loader import shipped_configs_dir, shipped_names
from trainer.run.folder.lock import is_live
from trainer.run.folder.run_dir import RunDir, list_runs

_OWN_IMAGES = (
    "Fine-tune on pictures of your own: class folders, with or without train/, val/ and test/. The folder is inspected, and a "
    "commented configuration is written here."
)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A choice of the start screen."""

    heading: str
    label: str
    about: str  # description, in lines
    command: tuple[str, ...] = ()  # arguments of `r18-tui` that carry it out; empty if another choice comes first
    config: str = ""  # configuration whose settings can be edited first; empty for others


def choices(runs_dir: Path) -> list[Choice]:
    """All choices, likeliest first: runs in training, then configurations to train, then other runs."""
    runs = list_runs(runs_dir)
    live = [run for run in runs if is_live(run)]
    found = [_run(run, "in training", "Come back to it, with all its keys.", "attach") for run in live]
    found += [_config(name) for name in ("digits", *(name for name in shipped_names() if name != "digits"))]
    found.append(Choice(heading="train", label="own images ...", about=_OWN_IMAGES))
    ended = [run for run in runs if run not in live]
    view = "View it. To resume an incomplete run, press r twice."
    found += [_run(run, "view", view, "show") for run in ended[:5]]
    if runs:
        about = "Every run of the folder: its status; the curves of several in one plot; open, resume, delete."
        command = ("runs", "--runs-dir", str(runs_dir))
        found.append(Choice(heading="view", label=f"all runs ({len(runs):,})", about=about, command=command))
    return found


def _config(name: str) -> Choice:
    """A shipped configuration, described by its first lines."""
    text = (shipped_configs_dir() / f"{name}.yaml").read_text(encoding="utf-8")
    comment = takewhile(lambda line: line.startswith("#"), text.splitlines())
    lines = [line.removeprefix("#").strip() for line in comment]
    return Choice(heading="train", label=name, about=_paragraphs(lines), command=(name,), config=name)


def _paragraphs(lines: list[str]) -> str:
    """Join the lines of a comment, except those that begin a new paragraph or item."""
    text = ""
    for line in lines:
        begins = line.split(":")[0] in ("Reaches", "Recipe", "Source")
        text += f"\n\n{line}" if begins and text else f" {line}" if text else line
    return text


def _run(run: RunDir, heading: str, about: str, command: str) -> Choice:
    return Choice(heading=heading, label=run.name, about=f"{about}\n\n{run.path}", command=(command, str(run.path)))
