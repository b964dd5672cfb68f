"""Plants faults in the program, one at a time, and prints the test that notices each.

    pip install -e '.[test,faults]'
    python -m benchmarks.planted_faults FOLDER [--drawn 100] [--seed 0] [--only 'step-*']
    python -m benchmarks.planted_faults --list

The faults are those of `benchmarks/unnoticed_faults.py` and others drawn from mechanical operators. FOLDER keeps a copy of the
working tree, two more in which the faults are planted, a map from lines to the tests that reach them, and the results; the same
command continues an interrupted one. After a change of the tree, use a new folder.

For each fault the tests that reach its line run, cheap ones first, until one fails or the time is up. A test that also fails
without the fault does not count; a test that hangs has noticed it. Tests in pseudo-terminals and on GPUs are left out, and lines
that only a killed child process reaches are not in the map. Exits with 1 when a fault's code no longer exists.

mutmut 3 forks after PyTorch has started its threads, maps tests to whole functions and cannot plant given faults; Cosmic Ray
changes the working tree in place and runs all tests for each fault.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import queue
import signal
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.copied_tree import Tree, path_of
from benchmarks.reached_lines import RECORD, ReachedLines
from benchmarks.unnoticed_faults import DRAWN_FROM, FAULTS
from tests.support.mutation_operators import draw
from tests.support.planting import Fault, NotPlacedError, place, read_sources

PACKAGES = ("trainer", "tui")
NOTICED = ("noticed", "timed out")
_LEAST_LIMIT_S = 60.0
"""No test counts as hanging before."""
_FILES_AT_A_TIME = 20
"""Test files that are recorded together, and lost together when a recording is interrupted."""


@dataclass(frozen=True)
class Result:
    """Outcome of the tests for one fault.

    Attributes:
        place: File and line.
        how: `noticed`, `timed out` (a test hung), `NOT NOTICED`, `not reached` (by no test) or `not placed`.
        test: The test that noticed it, or the reason why it was not placed.
        run: Number of tests that began.
        reaching: Number of tests that reach the line.
        seconds: Time of all tests.
    """

    fault: str
    place: str
    how: str
    test: str = ""
    run: int = 0
    reaching: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        """A row of the table."""
        by = {"noticed": f"by {self.test}", "timed out": f"in {self.test}", "not placed": self.test}.get(self.how, "")
        return (
            f"{self.fault:44} {self.place:40} {self.how:11} {self.run}/{self.reaching} tests {self.seconds:.0f} s {by}"
        )


def examine(
    fault: Fault, tree: Tree, sources: dict[str, str], reached: ReachedLines, mapped: Path, cap_s: float
) -> Result:
    """Plant one fault and run the tests that reach it, for at most `cap_s` seconds.

    Args:
        fault: The fault.
        tree: A copy of the working tree that no other thread uses.
        sources: Sources of all modules, without faults.
        reached: The map from lines to tests.
        mapped: Root of the tree in which the map was recorded.
        cap_s: Limit for all tests of the fault.
    """
    try:
        planted = place(fault, sources)
    except NotPlacedError as error:
        return Result(fault.name, fault.function, "not placed", str(error))
    location = f"{path_of(planted.module)}:{planted.lines.start}"
    tests = reached.tests_of(mapped / path_of(planted.module), planted.lines)
    limits = {name: max(_LEAST_LIMIT_S, 10 * reached.tests[name].seconds) for name in tests}
    begun, how, test, total = time.monotonic(), "NOT NOTICED" if tests else "not reached", "", 0
    while limits and (left_s := begun + cap_s - time.monotonic()) > 0:
        with tree.planted(planted.module, planted.source):
            how, test, run = tree.first_failure(limits, left_s)
        total += run
        if how not in NOTICED or test not in limits or _passes(test, tree, cap_s):
            break
        names = list(limits)  # this test fails without the fault, too; run those after it
        limits = {name: limits[name] for name in names[names.index(test) + 1 :]}
        how, test = "NOT NOTICED", ""
    return Result(fault.name, location, how, test, total, len(tests), round(time.monotonic() - begun, 1))


def _passes(test: str, tree: Tree, limit_s: float) -> bool:
    return tree.first_failure({test: limit_s}, limit_s)[0] not in NOTICED


def chosen_faults(sources: dict[str, str], given: argparse.Namespace) -> list[Fault]:
    """The faults of `FAULTS` and drawn ones whose names match the pattern."""
    patterns = [f"trainer.{name}" for name in DRAWN_FROM]
    modules = {
        name: source for name, source in sources.items() if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    }
    faults = [*FAULTS, *draw(modules, number=given.drawn, seed=given.seed)]
    return [fault for fault in faults if fnmatch.fnmatch(fault.name, given.only)]


def print_faults(faults: list[Fault], sources: dict[str, str]) -> int:
    """Print the place of each fault; 1 when one has no place."""
    code = 0
    for fault in faults:
        try:
            planted = place(fault, sources)
            print(f"{fault.name:44} {path_of(planted.module)}:{planted.lines.start}")
        except NotPlacedError as error:
            code = 1
            print(f"{fault.name:44} NOT PLACED: {error}")
        print(f"    {fault.old}\n    {fault.new}")
    return code


def record(folder: Path, tree: Tree, tests: list[str]) -> ReachedLines:
    """The map in `folder` from lines to tests, after adding the given test files and folders that it lacks."""
    folder.mkdir(exist_ok=True)
    known = folder / "files.txt"
    known.touch()
    files = [path for name in tests for path in sorted((tree.path / name).rglob("test_*.py")) or [tree.path / name]]
    names = [str(path.relative_to(tree.path)) for path in files]
    missing = [name for name in names if name not in known.read_text().splitlines()]
    for start in range(0, len(missing), _FILES_AT_A_TIME):
        print(f"recording the lines that tests reach: {len(missing) - start} test files are left", flush=True)
        group = missing[start : start + _FILES_AT_A_TIME]
        code = tree.pytest(["-m", "not pty and not gpu", "--tb=no", *group], timeout_s=None, **{RECORD: str(folder)})
        if code not in (0, 1, 5):
            sys.exit("the tests were interrupted")
        with known.open("a") as file:
            file.write("".join(f"{name}\n" for name in group))
    return ReachedLines(folder)


def plant_all(folder: Path, given: argparse.Namespace) -> int:
    """Examine all faults, two at a time; 1 when one has no place."""
    clean = Tree(folder / "clean")
    sources = read_sources(clean.path, PACKAGES)
    reached = record(folder / "reach", clean, given.tests)
    free: queue.SimpleQueue[Tree] = queue.SimpleQueue()
    for number in range(2):
        free.put(Tree(folder / f"tree-{number}", clean.path))
    results_file = folder / "results.jsonl"
    lines = results_file.read_text().splitlines() if results_file.exists() else []
    results = {result.fault: result for result in (Result(**json.loads(line)) for line in lines)}
    faults = chosen_faults(sources, given)
    finished = {name for name, result in results.items() if result.how in NOTICED or not given.again}
    waiting = [fault for fault in faults if fault.name not in finished or given.only != "*"]

    def examine_next(fault: Fault) -> Result:
        tree = free.get()
        try:
            return examine(fault, tree, sources, reached, clean.path, given.cap)
        finally:
            free.put(tree)

    begun = time.monotonic()
    with ThreadPoolExecutor(free.qsize()) as pool, results_file.open("a", buffering=1) as file:
        futures = [pool.submit(examine_next, fault) for fault in waiting]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                result = results[future.result().fault] = future.result()
                file.write(json.dumps(asdict(result)) + "\n")
                print(f"{(time.monotonic() - begun) / 60:5.1f} min {done:3}/{len(waiting)}  {result}", flush=True)
        finally:
            pool.shutdown(cancel_futures=True)  # after ctrl+c only the running ones are completed
    return print_summary([results[fault.name] for fault in faults])


def print_summary(results: list[Result]) -> int:
    """Print the number of noticed faults, and all others."""
    counts = Counter(result.how for result in results)
    placed = len(results) - counts["not placed"]
    noticed = sum(counts[how] for how in NOTICED)
    print()
    for result in results:
        if result.how not in NOTICED:
            print(result)
    print(
        f"{noticed} of {placed} faults noticed ({noticed / max(placed, 1):.0%}); "
        + ", ".join(f"{count} {how}" for how, count in counts.items())
    )
    return 1 if counts["not placed"] else 0


def main() -> int:
    """Plant, run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="for the copies, the map and the results")
    parser.add_argument("--drawn", type=int, default=100, help="number of faults of mechanical operators")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument(
        "--only",
        default="*",
        metavar="NAME",
        help="examine faults of this name (wildcards allowed), also finished ones",
    )
    parser.add_argument("--list", action="store_true", help="print the faults and run nothing")
    parser.add_argument("--again", action="store_true", help="repeat faults that were not noticed, for new tests")
    parser.add_argument("--tests", nargs="*", default=["tests"], help="test files that are added to the map")
    parser.add_argument("--cap", type=float, default=240.0, help="seconds of tests for one fault")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends the tests, too
    if given.list:
        sources = read_sources(Path(), PACKAGES)
        return print_faults(chosen_faults(sources, given), sources)
    if given.folder is None:
        parser.error("name a folder for the copies, the map and the results")
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return plant_all(folder, given)


if __name__ == "__main__":
    sys.exit(main())
