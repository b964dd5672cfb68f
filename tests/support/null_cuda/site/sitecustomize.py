"""In processes on the stand-in, replaces what reads values from the device: they are garbage there, and could be NaN.

Python imports this module at the start where its folder is in PYTHONPATH.
"""

from __future__ import annotations

import atexit
import ctypes
import dataclasses
import importlib.abc
import importlib.machinery
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any


def _finite_metrics(module: Any) -> None:
    collect = module.StepMetrics.collect

    def finite(metrics: Any, *, wait: bool = False) -> Any:
        window = collect(metrics, wait=wait)
        if window is None:
            return None
        steps = len(window.losses)
        return dataclasses.replace(window, losses=[1.0] * steps, accuracies=[0.5] * steps, skipped=[False] * steps)

    module.StepMetrics.collect = finite


def _finite_state(module: Any) -> None:
    module.TrainState.finite = True


def _finite_checkpoint(module: Any) -> None:
    module._refuse_nonfinite = lambda checkpoint: None


def _uncompared_parameters(module: Any) -> None:
    module._verify_param_shape_across_processes = lambda *_, **__: True


_CHANGES: dict[str, Callable[[Any], None]] = {
    "trainer.training.metrics": _finite_metrics,
    "trainer.training.state": _finite_state,
    "trainer.model.checkpoint": _finite_checkpoint,
    "torch.nn.parallel.distributed": _uncompared_parameters,
}


class _Changed(importlib.abc.MetaPathFinder):
    """Finds the modules to change, and changes each after it was loaded."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        change = _CHANGES.get(name)
        spec = importlib.machinery.PathFinder.find_spec(name, path) if change else None
        if spec is None or spec.loader is None or change is None:
            return None
        load = spec.loader.exec_module

        def load_and_change(module: ModuleType) -> None:
            load(module)
            change(module)

        spec.loader.exec_module = load_and_change  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _Changed())


def _report() -> None:
    """Write what this process has done with the device, and its threads, to a file of the folder `NULLCUDA_REPORTS`."""
    library = ctypes.CDLL(None)
    library.nullcuda_report.restype = ctypes.c_char_p
    threads = [
        thread.name for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()
    ]
    text = library.nullcuda_report(0).decode() + "".join(f"thread {name}\t1\n" for name in threads)
    Path(os.environ["NULLCUDA_REPORTS"], f"{os.getpid()}.txt").write_text(text)


if "NULLCUDA_REPORTS" in os.environ:
    atexit.register(_report)
