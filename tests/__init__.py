"""Each pytest-xdist worker computes with one thread, so that trainings do not compete for cores."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, also by programs that a test starts
