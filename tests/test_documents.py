"""The documents agree with the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import tui.cli
from trainer.config.loader import shipped_names
from trainer.run.log.codec import event_kinds

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def test_ci_runs_the_test_command_of_the_readme() -> None:
    commands = re.findall(r"```sh\n(python3 -m venv .*)\n```", (ROOT / "README.md").read_text())
    assert len(commands) == 2
    assert commands[0].endswith(".venv/bin/r18-tui digits")
    assert commands[1] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_generated_pages_are_up_to_date() -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        path, _, heading = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        assert not heading or heading in anchors(linked), target


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_files_named_on_a_page_exist(page: Path) -> None:
    text = page.read_text()
    blocks = "\n".join(re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL))
    code = [*re.findall(r"`r18-tui ([a-z][^` ]*)", text), *re.findall(r"^r18-tui ([a-z]\S*)", blocks, re.MULTILINE)]
    for word in code:
        assert word in {*commands(), *shipped_names()} or word.endswith(".yaml"), word
    if page.name != "CHANGELOG.md":  # it may name files of earlier releases
        for path in re.findall(r"\b(?:trainer|tui|tests|benchmarks|docs|configs|scripts)/[\w/.-]*\w", text):
            assert (ROOT / path).exists(), path


def test_the_commands_page_lists_all_commands() -> None:
    page = (ROOT / "docs" / "commands.md").read_text()
    assert set(re.findall(r"^\| `r18-tui ([a-z-]+)", page, re.MULTILINE)) >= commands()


def commands() -> set[str]:
    return set(tui.cli.all_commands())


def test_the_log_page_names_only_existing_kinds() -> None:
    page = (ROOT / "docs" / "run-directory.md").read_text()
    table = page.partition("| kind | fields |")[2].partition("\n\n")[0]
    named = set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))
    assert named
    assert named <= set(event_kinds())


def test_every_promise_names_an_existing_test() -> None:
    rows = [
        row for row in (ROOT / "docs" / "reliability.md").read_text().splitlines() if re.match(r"\| (?!what|---)", row)
    ]
    assert len(rows) > 10
    path = ""
    for row in rows:
        tests = re.findall(r"`([\w/.]*)::(\w+)`", row)
        assert tests, row
        for named_path, name in tests:
            path = named_path or path
            assert f"def {name}(" in (ROOT / path).read_text(), f"{path}::{name}"


def test_no_file_contains_a_path_of_a_developers_machine() -> None:
    folders = ("trainer", "tui", "tests", "configs", "docs", "benchmarks", "scripts", ".ci")
    kinds = (".py", ".md", ".yaml", ".tcss")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in kinds]
    assert len(files) > 80
    for path in [*files, *ROOT.glob("*.md"), ROOT / "pyproject.toml"]:
        if path != Path(__file__):
            assert not re.search(r"/(home|Users|work)/\w+", path.read_text()), path
