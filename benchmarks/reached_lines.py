"""The map from lines to the tests that reach them: a pytest plugin that records it, and one that runs chosen tests in order.

Needs `coverage`. Child processes of tests are measured, too, unless they are killed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from coverage import Coverage, CoverageData

RECORD = "PLANTED_RECORD"
"""Environment variable with the folder of a recording."""

CHOSEN = "PLANTED_CHOSEN"
"""Environment variable with the path of a JSON file: the tests to run, in order, and the seconds that each may take."""


@dataclass
class _Test:
    """Seconds of a test with setup and teardown, and the fixtures that it shares with others, separated by spaces."""

    seconds: float
    shared: str


class _Recorder:
    """Records the tests that reach each line, and the duration and shared fixtures of each test."""

    def __init__(self, folder: Path) -> None:
        """Start at once, since collecting the tests imports modules."""
        packages = [str(Path(name).resolve()) for name in ("trainer", "tui")]
        self.coverage = Coverage(data_file=str(folder / "coverage"), source=packages, config_file=False)
        self.coverage.set_option("run:parallel", True)
        self.coverage.set_option("run:patch", ["_exit"])  # saves the data of children that end with `os._exit`
        self.path = folder / f"tests-{os.getpid()}-{time.time_ns()}.json"
        self.tests: dict[str, _Test] = {}
        self.coverage.start()

    def _begin(self, context: str) -> None:
        self.coverage.switch_context(context)
        self.coverage.set_option("run:context", context)  # only child processes read it
        os.environ["COVERAGE_PROCESS_CONFIG"] = self.coverage.config.serialize()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Attribute lines that shared fixtures reach to all tests that use them."""
        self.tests[item.nodeid] = _Test(0.0, _shared_fixtures(item))
        self._begin(self.tests[item.nodeid].shared or item.nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        """Attribute lines to the test alone."""
        self._begin(item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add up setup, call and teardown."""
        if report.nodeid in self.tests:
            self.tests[report.nodeid].seconds += report.duration

    def pytest_sessionfinish(self) -> None:
        """Write the recording."""
        os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
        self.coverage.stop()
        self.coverage.save()
        self.path.write_text(json.dumps({name: [test.seconds, test.shared] for name, test in self.tests.items()}))


def _shared_fixtures(item: pytest.Item) -> str:
    """The fixtures of this project that live longer than one test."""
    fixtures = getattr(item, "_fixtureinfo").name2fixturedefs.values()  # noqa: B009 - no public name
    own = [defined[-1] for defined in fixtures if defined[-1].scope != "function" and defined[-1].baseid]
    return " ".join(sorted(f"{fixture.baseid}::{fixture.argname}" for fixture in own))


class _Chooser:
    """Runs chosen tests in order, and logs the start of each and which fail."""

    def __init__(self, chosen: Path) -> None:
        self.limits: dict[str, float] = json.loads(chosen.read_text())
        self.log = chosen.with_suffix(".log").open("a", buffering=1)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Drop all other tests, and set the limits."""
        collected = {item.nodeid: item for item in items}
        items[:] = [collected[name] for name in self.limits if name in collected]
        for item in items:
            item.add_marker(pytest.mark.timeout(self.limits[item.nodeid]), append=False)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Log that a test begins."""
        self._note("begin", nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Log a failed test, and whether it timed out."""
        if report.failed:
            late = "from pytest-timeout" in report.longreprtext
            self._note("timed out" if late else "noticed", report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Log a test file that cannot be imported."""
        if report.failed:
            self._note("noticed", report.nodeid)

    def _note(self, kind: str, nodeid: str) -> None:
        self.log.write(json.dumps([kind, nodeid, time.time()]) + "\n")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Register the plugin that the environment asks for, before any conftest imports modules."""
    if folder := os.environ.get(RECORD):
        early_config.pluginmanager.register(_Recorder(Path(folder)))
    if chosen := os.environ.get(CHOSEN):
        early_config.pluginmanager.register(_Chooser(Path(chosen)))


class ReachedLines:
    """A recording as a map from lines to tests."""

    def __init__(self, folder: Path) -> None:
        """Read the recording in a folder."""
        self.tests = {
            name: _Test(*values)
            for path in folder.glob("tests-*.json")
            for name, values in json.loads(path.read_text()).items()
        }
        parts = Coverage(data_file=str(folder / "coverage"), config_file=False)
        if list(folder.glob("coverage.*")):
            parts.load()
            parts.combine([str(folder)])
            parts.save()
        self._data = CoverageData(str(folder / "coverage"))
        self._data.read()

    def tests_of(self, path: Path, lines: range) -> list[str]:
        """Tests that reach one of the lines, cheap ones first; tests with the same shared fixtures stay together."""
        by_line = self._data.contexts_by_lineno(str(path))
        contexts = {context for line in lines for context in by_line.get(line, ())}
        fixtures = set(" ".join(contexts - self.tests.keys()).split())
        chosen = [name for name, test in self.tests.items() if name in contexts or fixtures & set(test.shared.split())]
        if "" in contexts:  # reached while modules are imported
            chosen += [name for name in self.tests if Path(name.partition("::")[0]).stem == f"test_{path.stem}"]
        return list(_cheap_first(dict.fromkeys(chosen), self.tests))


def _cheap_first(names: Sequence[str] | dict[str, None], tests: dict[str, _Test]) -> Iterator[str]:
    blocks: dict[str, list[str]] = {}
    for name in names:
        blocks.setdefault(tests[name].shared or name, []).append(name)
    for block in sorted(blocks.values(), key=lambda block: sum(tests[name].seconds for name in block)):
        yield from sorted(block, key=lambda name: tests[name].seconds)
