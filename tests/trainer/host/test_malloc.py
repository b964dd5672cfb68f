"""Freed memory is reused without page faults."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

_FAULTS = """
import resource, threading
from trainer.host.process_tuning import keep_freed_memory

def faults(size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        blocks = [bytearray(size) for _ in range(2)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def on_a_thread():
    faults(size=1 << 26)
    print(faults(size=1 << 26))

if {keep}:
    assert keep_freed_memory()
thread = threading.Thread(target=on_a_thread)
thread.start()
thread.join()
"""


def _faults(*, keep: bool) -> int:
    program = [sys.executable, "-c", _FAULTS.format(keep=keep)]
    return int(subprocess.run(program, check=True, capture_output=True, text=True, timeout=60).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_freed_memory_is_kept_for_threads() -> None:
    # 64 MiB: the largest activation of the CIFAR stem at batch 256, and more than the heap of another thread can hold.
    assert 20 * _faults(keep=True) < _faults(keep=False)
