"""`report`: a self-contained page for any run."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.support.canned import CannedSource, evaluated, opened, started, steps, training_run
from tests.support.canned_pictures import with_pictures
from trainer.errors import DiskError
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.run_events import Failed, Warned
from trainer.run.view.replay import replay
from trainer.run.view.run_view import RunView
from tui.cli import main
from tui.commands.report import html_report, write_report

EVIL = "<script>alert(1)</script>"


class CheckedPage(HTMLParser):
    """Parses a page and asserts that it is well-formed."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "data", "action")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(source: CannedSource, run_dir: RunDir) -> CheckedPage:
    view = RunView()
    replay(view, source.read())
    page = CheckedPage()
    page.feed(html_report(view, run_dir))
    assert page.open == [], "every element is closed"
    assert "script" not in page.seen
    assert all(link.startswith("data:image/png;base64,") for link in page.links), "no external resources"
    return page


def test_a_page_has_all_parts_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("run: {name: demo}\n")
    source = with_pictures(RunDir(tmp_path))
    source.add(dataclasses.replace(steps(301), budget={"data": 31.0, "compute": 150.0}))
    page = page_of(source, RunDir(tmp_path))
    for part in (
        "ResNet-18, cifar stem, 11.2 M parameters", "test accuracy 40.00%", "training waits for data", "Learning rate",
        "Classes on test", "21.9 to 39.6", "Confusion", "Worst pairs", "47.0 %", "Most confident mistakes on test",
        "[red]cat[/] as dog 98 %",
        "Training images as the network sees them", "70 % dog, 30 % airplane", "new run runs/demo", "run: {name: demo}",
    ):  # fmt: skip
        assert part in page.text, part
    assert page.seen.count("svg") == 3
    assert page.seen.count("circle") == 6, "three evaluations in two plots"
    assert len(page.links) == 3


def test_heat_maps_are_below_their_pictures(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("run: {name: demo}\n")
    plain = page_of(with_pictures(RunDir(tmp_path)), RunDir(tmp_path)).links
    page = page_of(with_pictures(RunDir(tmp_path), heat=[[255, 0], [0, 0]]), RunDir(tmp_path))
    assert len(page.links) == len(plain) + 2, "of each mistake"
    assert page.links[0] == plain[0]
    assert page.links[1] not in plain


def test_wide_tables_can_be_scrolled(tmp_path: Path) -> None:
    view = RunView()
    replay(view, training_run().read())
    page = html_report(view, RunDir(tmp_path))
    assert page.count("<table>") == page.count('<div class="wide"><table>') > 0
    assert ".wide { overflow-x: auto; }" in page


def test_names_from_disk_are_escaped(tmp_path: Path) -> None:
    source = training_run(classes=[EVIL, "a&b", "ev\x1b[2Jil"])
    source.add(Warned(message=EVIL))
    page = page_of(source, RunDir(tmp_path / "<b>run"))
    assert page.text.count(EVIL) >= 3
    assert "a&b" in page.text
    assert "\x1b" not in page.text


def test_a_run_without_steps_has_a_page(tmp_path: Path) -> None:
    page = page_of(CannedSource(opened(), Failed(error="no images", exit_code=2)), RunDir(tmp_path))
    assert "No step was taken." in page.text
    assert "no images" in page.text


def test_many_classes_have_only_the_worst_pairs(tmp_path: Path) -> None:
    page = page_of(training_run(classes=[f"class {label}" for label in range(100)]), RunDir(tmp_path))
    assert "Worst pairs" in page.text
    assert "Confusion: true class down, answer across" not in page.text
    assert page.seen.count("td") < 2000


def test_a_curve_has_every_spike_and_gaps_at_nan(tmp_path: Path) -> None:
    losses: list[float | None] = [1.0] * 100
    losses[37], losses[50] = 9.0, None
    source = CannedSource(opened(), started(), dataclasses.replace(steps(1), loss=losses), evaluated(1))
    view = RunView()
    replay(view, source.read())
    (path,) = re.findall(r'<path class="raw" d="([^"]*)"', html_report(view, RunDir(tmp_path)))[:1]
    heights = [float(y) for y in re.findall(r"[ML][0-9.]+ ([0-9.]+)", path)]
    assert min(heights) < 35, "the spike reaches the top"
    assert "nan" not in path


def test_the_report_is_written_into_the_run_directory_or_the_given_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(tmp_path / "runs" / "demo")
    run.path.mkdir(parents=True)
    run.events.write_bytes(b"\n".join(training_run().read()) + b"\n")
    assert main(["report", "demo", "--runs-dir", str(tmp_path / "runs")]) == 0
    assert capsys.readouterr().out == f"wrote {run.report}\n"
    assert run.report.read_text().startswith("<!doctype html>")
    assert main(["report", str(run.path), "-o", str(tmp_path / "x.html")]) == 0
    assert (tmp_path / "x.html").read_text().startswith("<!doctype html>")
    with pytest.raises(DiskError, match="choose a place with -o"):
        write_report(run, tmp_path / "nowhere" / "x.html")
