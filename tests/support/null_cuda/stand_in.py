"""Builds the stand-in, and reads its books."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import torch

SOURCES = Path(__file__).parent
TORCH = (2, 14)  # the version whose calls it answers


class UnavailableError(Exception):
    """The stand-in cannot be built here; the message says why."""


def build(folder: Path) -> dict[str, str]:
    """Build the libraries in a folder, in seconds; returns the environment variables of processes that use them."""
    _check()
    packages = Path(torch.__file__).parents[1]
    headers = (*packages.glob("nvidia/*/include"), packages / "triton/backends/nvidia/include")
    includes = [f"-I{found}" for found in headers]
    objects = []
    for source in (*SOURCES.glob("*.cpp"), SOURCES / "cublas_products.c", SOURCES / "nccl.c"):
        objects.append(str(folder / f"{source.stem}.o"))
        compiler = ["g++", "-std=c++17"] if source.suffix == ".cpp" else ["gcc"]
        _run(*compiler, "-O1", "-c", "-w", "-fPIC", *includes, str(source), "-o", objects[-1])
    _run("g++", "-shared", *objects, "-o", str(folder / "libnullcuda.so"))
    _run("gcc", "-shared", "-fPIC", "-w", str(SOURCES / "driver.c"), "-o", str(folder / "libcuda.so.1"))
    return {"LD_PRELOAD": str(folder / "libnullcuda.so"), "LD_LIBRARY_PATH": str(folder), "OMP_NUM_THREADS": "1"}


def _check() -> None:
    if torch.version.cuda is None or tuple(map(int, torch.__version__.split(".")[:2])) != TORCH:
        raise UnavailableError(f"needs torch {TORCH[0]}.{TORCH[1]} built for CUDA, not {torch.__version__}")
    if shutil.which("g++") is None:
        raise UnavailableError("needs g++")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"{command[0]} failed: {done.stderr[:500]}")


def counts(*, reset: bool = True) -> dict[str, int]:
    """What this process, which uses the stand-in, has done with the device since the last reset."""
    library = ctypes.CDLL(None)
    library.nullcuda_report.restype = ctypes.c_char_p
    lines = library.nullcuda_report(int(reset)).decode().splitlines()
    return {name: int(count) for name, count in (line.split("\t") for line in lines)}


def limit_memory(num_bytes: int) -> None:
    """Limit the device's memory; 0 for no limit."""
    ctypes.CDLL(None).nullcuda_cap(ctypes.c_size_t(num_bytes))
