"""Reads memory and device on a separate thread, so that a slow driver never delays training."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import torch

from trainer.host.limits import usable_memory

_INTERVAL_S = 2.0
_MAX_SILENCE_S = 10.0  # seconds after which readings are published although they have hardly changed
_MIN_CHANGE = 0.02  # relative change below which a reading is not published
_MIN_CHANGE_PCT = 5.0  # the same in percentage points, for readings in percent

Reader = Callable[[], dict[str, float]]


class SystemMonitor:
    """Reads every two seconds and publishes when something has changed or ten seconds have passed.

    `suspend` and `stop` may be called by any thread.
    """

    def __init__(self, device: torch.device, publish: Callable[[dict[str, float]], None]) -> None:
        self._readers = readers_for(device)
        self._publish = publish
        self._stopped = threading.Event()
        self._awake = threading.Event()
        self._awake.set()
        self._thread = threading.Thread(target=self._run, name="system-monitor", daemon=True)
        self._thread.start()

    def suspend(self, paused: bool) -> None:
        """Stop reading while training is paused, so that a paused run publishes nothing."""
        if paused:
            self._awake.clear()
        else:
            self._awake.set()

    def stop(self) -> None:
        """Stop, waiting at most one interval for a reading in progress."""
        self._stopped.set()
        self._awake.set()
        self._thread.join(_INTERVAL_S)

    def _run(self) -> None:
        published: dict[str, float] = {}
        published_at = 0.0
        while not self._stopped.wait(_INTERVAL_S):
            self._awake.wait()
            readings: dict[str, float] = {}
            for reader in self._readers:
                try:
                    readings |= reader()
                except (psutil.Error, RuntimeError, OSError):
                    continue  # a reading that fails is omitted; the pane shows what there is
            now = time.monotonic()
            if not self._stopped.is_set() and (now - published_at >= _MAX_SILENCE_S or _moved(published, readings)):
                published, published_at = readings, now
                self._publish(readings)


def _moved(before: dict[str, float], now: dict[str, float]) -> bool:
    """Whether readings have changed enough to publish; otherwise a run of weeks would log half a million of them."""
    if before.keys() != now.keys():
        return True
    return any(
        abs(now[name] - value) > (_MIN_CHANGE_PCT if name.endswith("_pct") else _MIN_CHANGE * abs(value))
        for name, value in before.items()
    )


def readers_for(device: torch.device) -> list[Reader]:
    """Functions that read the memory and the state of a device."""
    if device.type == "cuda":
        index = device.index or 0
        return [lambda: _cuda(index), *_nvml(torch.cuda.get_device_properties(index).uuid), _process]
    if device.type == "mps":
        return [_mps, _process]
    return [_process]


def _process() -> dict[str, float]:
    memory = usable_memory()
    return {
        "process_bytes": psutil.Process().memory_info().rss,
        "system_used_bytes": memory.total - memory.available,
        "system_total_bytes": memory.total,
        "cpu_pct": psutil.cpu_percent(),
    }


def _cuda(index: int) -> dict[str, float]:
    free, total = torch.cuda.mem_get_info(index)
    return {
        "allocated_bytes": float(torch.cuda.memory_allocated(index)),
        "reserved_bytes": float(torch.cuda.memory_reserved(index)),
        "peak_bytes": float(torch.cuda.max_memory_allocated(index)),
        "device_used_bytes": float(total - free),
        "device_total_bytes": float(total),
    }


def _mps() -> dict[str, float]:
    return {
        "allocated_bytes": float(torch.mps.current_allocated_memory()),
        "reserved_bytes": float(torch.mps.driver_allocated_memory()),
        "device_total_bytes": float(torch.mps.recommended_max_memory()),
    }


def _nvml(uuid: Any) -> list[Reader]:
    """NVML readings of one GPU, found by UUID because CUDA_VISIBLE_DEVICES renumbers devices."""
    import pynvml

    handle = _nvml_handle(uuid)
    if handle is None:
        return []

    def temperature() -> float:
        try:
            return float(pynvml.nvmlDeviceGetTemperatureV(handle, pynvml.NVML_TEMPERATURE_GPU))
        except (AttributeError, pynvml.NVMLError):  # older bindings or drivers; CUDA 14 drops the other one
            return float(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))

    sources: dict[str, Callable[[], float]] = {
        "utilization_pct": lambda: float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
        "temperature_c": temperature,
        "power_w": lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1000.0,
    }

    def read_all() -> dict[str, float]:
        readings = {}
        for name, source in sources.items():
            try:
                readings[name] = source()
            except pynvml.NVMLError:  # containers, MIG slices and laptops support only some of them
                continue
        return readings

    return [read_all]


def _nvml_handle(uuid: Any) -> Any:
    """The GPU with a UUID, or that of which the MIG slice with it is a part: a slice has no sensors. None where there is none."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    with contextlib.suppress(pynvml.NVMLError):
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    with contextlib.suppress(pynvml.NVMLError):
        return pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(pynvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}"))
    return None
