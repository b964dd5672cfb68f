"""Tests run in two processes (pytest-xdist), each with one thread, so that trainings do not wait for each other's cores."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # read when torch is imported, and by every program that a test starts
