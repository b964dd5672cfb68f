"""Plants faults in the program, one at a time, and prints which test notices each.

    pip install -e '.[test,faults]'
    python -m benchmarks.planted_faults FOLDER [--drawn 100] [--seed 0] [--only 'step-*']
    python -m benchmarks.planted_faults --list

The faults are those of `benchmarks/unnoticed_faults.py` and more that mechanical operators draw. The folder keeps a copy of
the working tree, two more in which alone code is changed, a map from lines to the tests that reach them, and the results, so
that the same command continues where it was stopped. It belongs to one state of the tree: take a new folder after a change.

For each fault the tests that reach its line run, cheap ones first, until one fails or the time is up. A test that also fails
without the fault counts for nothing. A test that hangs has noticed the fault. Tests in pseudo-terminals and on GPUs are left out,
and what child processes do that are killed is not in the map. Exits 1 when the code that a fault changes is not there any more.

mutmut 3 forks after PyTorch has started its threads, maps tests to whole functions and plants no faults of one's own; Cosmic Ray
changes the working tree in place and runs all tests for each fault. So this script is our own.
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
"""No test is taken to hang before."""
_FILES_AT_A_TIME = 20
"""Files of tests that are recorded together: what is lost when a recording is stopped."""


@dataclass(frozen=True)
class Result:
    """What the tests made of one fault.

    Attributes:
        fault: Its name.
        place: File and line.
        how: `noticed`, `timed out` (a test hung), `NOT NOTICED`, `not reached` (by no test) or `not placed`.
        test: The test that noticed it, or the reason that it is not placed.
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
    """Plant one fault and run the tests that reach it.

    Args:
        fault: The fault.
        tree: A copy of the working tree that no other thread uses.
        sources: Sources of all modules, without faults.
        reached: The map from lines to tests.
        mapped: The tree that it was recorded in.
        cap_s: Seconds for all tests of the fault.
    """
    try:
        there = place(fault, sources)
    except NotPlacedError as error:
        return Result(fault.name, fault.function, "not placed", str(error))
    where = f"{path_of(there.module)}:{there.lines.start}"
    tests = reached.tests_of(mapped / path_of(there.module), there.lines)
    limits = {name: max(_LEAST_LIMIT_S, 10 * reached.tests[name].seconds) for name in tests}
    begun, how, test, total = time.monotonic(), "NOT NOTICED" if tests else "not reached", "", 0
    while limits and (left_s := begun + cap_s - time.monotonic()) > 0:
        with tree.planted(there.module, there.source):
            how, test, run = tree.first_failure(limits, left_s)
        total += run
        if how not in NOTICED or test not in limits or _passes(test, tree, cap_s):
            break
        names = list(limits)  # that test fails in any case; those after it are still to run
        limits = {name: limits[name] for name in names[names.index(test) + 1 :]}
        how, test = "NOT NOTICED", ""
    return Result(fault.name, where, how, test, total, len(tests), round(time.monotonic() - begun, 1))


def _passes(test: str, tree: Tree, limit_s: float) -> bool:
    return tree.first_failure({test: limit_s}, limit_s)[0] not in NOTICED


def chosen_faults(sources: dict[str, str], given: argparse.Namespace) -> list[Fault]:
    """Those written by hand and those drawn, by name."""
    patterns = [f"trainer.{name}" for name in DRAWN_FROM]
    modules = {
        name: source for name, source in sources.items() if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    }
    faults = [*FAULTS, *draw(modules, number=given.drawn, seed=given.seed)]
    return [fault for fault in faults if fnmatch.fnmatch(fault.name, given.only)]


def print_faults(faults: list[Fault], sources: dict[str, str]) -> int:
    """Print where each fault goes; 1 when one goes nowhere."""
    code = 0
    for fault in faults:
        try:
            there = place(fault, sources)
            print(f"{fault.name:44} {path_of(there.module)}:{there.lines.start}")
        except NotPlacedError as error:
            code = 1
            print(f"{fault.name:44} NOT PLACED: {error}")
        print(f"    {fault.old}\n    {fault.new}")
    return code


def record(folder: Path, tree: Tree, tests: list[str]) -> ReachedLines:
    """The map from lines to tests, with some files of tests more where they are not in it yet.

    Args:
        folder: Folder of the map.
        tree: Where the tests run.
        tests: Files and folders of tests.
    """
    folder.mkdir(exist_ok=True)
    known = folder / "files.txt"
    known.touch()
    found = [path for name in tests for path in sorted((tree.path / name).rglob("test_*.py")) or [tree.path / name]]
    names = [str(path.relative_to(tree.path)) for path in found]
    missing = [name for name in names if name not in known.read_text().splitlines()]
    for start in range(0, len(missing), _FILES_AT_A_TIME):
        print(f"recording what tests reach: {len(missing) - start} files of tests are left", flush=True)
        files = missing[start : start + _FILES_AT_A_TIME]
        code = tree.pytest(["-m", "not pty and not gpu", "--tb=no", *files], timeout_s=None, **{RECORD: str(folder)})
        if code not in (0, 1, 5):
            sys.exit("the tests did not run to their end")
        with known.open("a") as file:
            file.write("".join(f"{name}\n" for name in files))
    return ReachedLines(folder)


def plant_all(folder: Path, given: argparse.Namespace) -> int:
    """Examine all faults, two at a time; 1 when one is not placed."""
    clean = Tree(folder / "clean")
    sources = read_sources(clean.path, PACKAGES)
    reached = record(folder / "reach", clean, given.tests)
    free: queue.SimpleQueue[Tree] = queue.SimpleQueue()
    for number in range(2):
        free.put(Tree(folder / f"tree-{number}", clean.path))
    kept = folder / "results.jsonl"
    lines = kept.read_text().splitlines() if kept.exists() else []
    results = {result.fault: result for result in (Result(**json.loads(line)) for line in lines)}
    faults = chosen_faults(sources, given)
    settled = {name for name, result in results.items() if result.how in NOTICED or not given.again}
    waiting = [fault for fault in faults if fault.name not in settled or given.only != "*"]

    def examine_next(fault: Fault) -> Result:
        tree = free.get()
        try:
            return examine(fault, tree, sources, reached, clean.path, given.cap)
        finally:
            free.put(tree)

    begun = time.monotonic()
    with ThreadPoolExecutor(free.qsize()) as pool, kept.open("a", buffering=1) as file:
        futures = [pool.submit(examine_next, fault) for fault in waiting]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                result = results[future.result().fault] = future.result()
                file.write(json.dumps(asdict(result)) + "\n")
                print(f"{(time.monotonic() - begun) / 60:5.1f} min {done:3}/{len(waiting)}  {result}", flush=True)
        finally:
            pool.shutdown(cancel_futures=True)  # after ctrl+c, once the faults under way are through
    return print_summary([results[fault.name] for fault in faults])


def print_summary(results: list[Result]) -> int:
    """Print how many faults were noticed, and all that were not."""
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
        "--only", default="*", metavar="NAME", help="only faults of this name; with wildcards; again if done"
    )
    parser.add_argument("--list", action="store_true", help="print the faults, and run nothing")
    parser.add_argument("--again", action="store_true", help="repeat what was not noticed, with more tests perhaps")
    parser.add_argument("--tests", nargs="*", default=["tests"], help="files of tests that are added to the map")
    parser.add_argument("--cap", type=float, default=240.0, help="seconds of tests for one fault")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that tests end with this process
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
