"""Readings of memory and device are published when they change noticeably."""

from __future__ import annotations

import pytest

from trainer.session import system_monitor
from trainer.session.system_monitor import _moved

BEFORE = {"process_bytes": 1_000_000.0, "cpu_pct": 90.0}


@pytest.mark.parametrize(
    ("now", "changed"),
    [
        (BEFORE, False),
        (BEFORE | {"process_bytes": 1_015_000.0, "cpu_pct": 94.0}, False),
        (BEFORE | {"process_bytes": 1_030_000.0}, True),
        (BEFORE | {"cpu_pct": 84.0}, True),
        (BEFORE | {"power_w": 90.0}, True),
        ({"cpu_pct": 90.0}, True),
    ],
)
def test_small_changes_of_readings_are_not_published(now: dict[str, float], changed: bool) -> None:
    assert _moved(BEFORE, now) is changed


@pytest.mark.parametrize(("known", "sensor"), [("GPU-12", "handle of GPU-12"), ("MIG-12", "GPU of MIG-12")])
def test_a_slice_of_a_gpu_is_read_at_its_gpu(monkeypatch: pytest.MonkeyPatch, known: str, sensor: str) -> None:
    import pynvml

    def handle_of(uuid: str) -> str:
        if uuid != known:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return f"handle of {uuid}"

    def unsupported(handle: str) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", handle_of)
    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetDeviceHandleFromMigDeviceHandle", lambda handle: handle.replace("handle", "GPU")
    )
    monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerUsage", lambda handle: {sensor: 250_000}[handle])
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTemperatureV", lambda handle, _: {sensor: 60}[handle])
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", unsupported)
    (read,) = system_monitor._nvml("12")
    assert read() == {"power_w": 250.0, "temperature_c": 60.0}
    assert system_monitor._nvml("34") == []
