"""Errors of torch and the system, by their text and the exit codes of workers."""

from __future__ import annotations

import signal

import pytest

from trainer.data.batches.worker_pool import cause_of_death, is_timeout, is_worker_death

SHARED_MEMORY = (
    "unable to write to file </torch_3120_2814_0>: No space left on device (28)",
    "DataLoader worker (pid 7) is killed by signal: Bus error. It may have run out of shared memory.",
    "unable to open shared memory object </psm_1> in read-write mode",
)


@pytest.mark.parametrize("text", SHARED_MEMORY)
def test_each_error_of_shared_memory_is_a_worker_death_that_needs_another_way(text: str) -> None:
    assert is_worker_death(RuntimeError(text))
    cause = cause_of_death([None], RuntimeError(f"Traceback\n{text}"))
    assert cause.text == text
    assert cause.of_shared_memory


def test_a_bus_error_lacks_shared_memory_and_a_kill_does_not() -> None:
    other = RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")
    assert cause_of_death([None, -signal.SIGBUS, -signal.SIGKILL], other).of_shared_memory
    killed = cause_of_death([-signal.SIGKILL], other)
    assert not killed.of_shared_memory
    assert "killed" in killed.text
    assert not cause_of_death([1], RuntimeError("broken")).of_shared_memory


def test_other_errors_are_no_worker_death() -> None:
    assert not is_worker_death(RuntimeError("shape mismatch"))
    assert not is_worker_death(ValueError("no image"))
    assert not is_timeout(RuntimeError("shape mismatch"))
