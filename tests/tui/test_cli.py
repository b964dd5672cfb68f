"""The command that a command line selects, and the arguments that it receives."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from trainer.cli import Subcommand
from tui import cli


@pytest.mark.parametrize(
    ("argv", "name", "given"),
    [
        (["doctor", "digits", "train.epochs=2"], "doctor", ["doctor", "digits", "train.epochs=2"]),
        (["train.epochs=2", "doctor", "digits"], "doctor", ["doctor", "digits", "train.epochs=2"]),
        (["predict", "latest", "a=b.jpg"], "predict", ["predict", "latest", "a=b.jpg"]),
        (["runs", "--plain"], "runs", ["runs", "--plain"]),
    ],
)
def test_a_command_is_found_after_settings(
    argv: list[str], name: str, given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Subcommand, list[str]]] = []

    def run(command: Subcommand, argv: Sequence[str], *, program: str) -> int:
        seen.append((command, list(argv)))
        return 0

    monkeypatch.setattr("trainer.cli.run_command", run)
    assert cli.main(argv) == 0
    assert seen == [(cli.all_commands()[name], given)]


def test_commands_without_settings_refuse_them_and_others_receive_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    received: list[tuple[list[str], list[str]]] = []

    def main(given: argparse.Namespace) -> int:
        received.append((given.words, given.overrides))
        return 0

    for command in cli.all_commands().values():
        module = SimpleNamespace(
            add_arguments=lambda parser: parser.add_argument("words", nargs="*"),
            main=main,
        )
        monkeypatch.setitem(sys.modules, command.module, module)
    assert cli.main(["export", "run", "train.epochs=2"]) == 2
    assert "train.epochs=2: export takes no settings" in capsys.readouterr().err
    assert received == []
    assert [cli.main([name, "run", "train.epochs=2"]) for name in ("eval", "doctor")] == [0, 0]
    assert received == [(["run", "train.epochs=2"], []), (["run"], ["train.epochs=2"])]
