"""Fused batch norm, addition and ReLU against PyTorch in float64, in Triton's interpreter on the CPU; compiled for real GPUs."""

from __future__ import annotations

import copy
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Container, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import ConfigMaker
from trainer.config.schema import ModelConfig
from trainer.errors import ConfigError, DeviceError
from trainer.model.norm.fused import fused_norm, why_not_fused
from trainer.model.numerics import Numerics
from trainer.model.resnet import build_model, set_train_mode
from trainer.training import autotune
from trainer.training.autotune import _candidates

CPU = torch.device("cpu")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
interpreted = pytest.mark.skipif(not INTERPRETED, reason="run by test_in_tritons_interpreter")

WAYS = {"norm": (False, False), "norm and ReLU": (False, True), "all": (True, True)}
# Of ResNet-18 at 32 pixels with few images, and odd ones: rows that fill no tile, several parts, few channels.
SHAPES = [
    (3, 64, 32, 32), (2, 128, 16, 16), (2, 256, 8, 8), (4, 512, 4, 4), (3, 512, 2, 2), (3, 5, 7, 5), (2, 96, 11, 3),
    (9, 16, 16, 16),
]  # fmt: skip
CASES = [(torch.float32, 20, shape, "all") for shape in SHAPES]
CASES += [(torch.float32, 20, shape, way) for shape in SHAPES[2:4] for way in ("norm", "norm and ReLU")]
CASES += [
    (dtype, bits, shape, "all") for dtype, bits in ((torch.bfloat16, 7), (torch.float16, 9)) for shape in SHAPES[2:4]
]


@needs_triton
def test_in_tritons_interpreter() -> None:
    """In a process of its own: the interpreter is chosen when Triton is imported."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        "addopts=",
        __file__,
        "-k",
        "interpreted",
    ]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"\d+ passed", done.stdout)


def drawn(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return (values.to(memory_format=torch.channels_last) if len(shape) == 4 else values).to(dtype)


def random_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, momentum=0.3)
    with torch.no_grad():
        norm.weight.copy_(drawn((channels,), 1))
        norm.bias.copy_(drawn((channels,), 2))
        assert norm.running_mean is not None
        norm.running_mean.copy_(drawn((channels,), 3))
    return norm


def deviation(actual: Tensor | None, expected: Tensor | None) -> float:
    assert actual is not None
    assert expected is not None
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


@interpreted
@pytest.mark.parametrize(("dtype", "bits", "shape", "way"), CASES)
def test_interpreted_values_and_gradients_equal_those_in_float64(
    dtype: torch.dtype, bits: int, shape: tuple[int, int, int, int], way: str
) -> None:
    (adds, relu), norm = WAYS[way], random_norm(shape[1])
    exact = copy.deepcopy(norm).double()
    x = (3 * drawn(shape, 4) + 10).to(dtype).requires_grad_()
    other = drawn(shape, 5, dtype).requires_grad_() if adds else None
    x64, other64 = (
        x.detach().double().requires_grad_(),
        None if other is None else other.detach().double().requires_grad_(),
    )
    y = fused_norm(x, norm, add=other, relu=relu)
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=torch.channels_last)
    y64 = exact(x64) if other64 is None else exact(x64) + other64
    y64 = y64.relu() if relu else y64
    dy = drawn(shape, 6, dtype)
    # Rounding may decide about a ReLU at 0: both sides get the same gradient behind it.
    dy = dy * ((y64 > 0) == (y > 0)) if relu else dy
    y.backward(dy)
    y64.backward(dy.double())
    limit = 2.0**-bits
    found = {
        "y": deviation(y, y64), "x": deviation(x.grad, x64.grad), "weight": deviation(norm.weight.grad, exact.weight.grad),
        "bias": deviation(norm.bias.grad, exact.bias.grad), "running mean": deviation(norm.running_mean, exact.running_mean),
        "running variance": deviation(norm.running_var, exact.running_var),
    }  # fmt: skip
    if other is not None and other64 is not None:
        found["other"] = deviation(other.grad, other64.grad)
    assert {name: value for name, value in found.items() if not value < limit} == {}
    assert norm.num_batches_tracked == exact.num_batches_tracked


@interpreted
def test_interpreted_nonfinite_features_stay_nonfinite() -> None:
    """A step with them must be skipped."""
    x = drawn((4, 8, 2, 2), 0)
    x[0, 3, 0, 0] = torch.inf
    norm = random_norm(8)
    y = fused_norm(x, norm)
    assert y[:, 3].isnan().any()
    assert y[:, :3].isfinite().all()
    assert norm.running_var is not None
    assert not norm.running_var[3].isfinite()


@interpreted
@pytest.mark.parametrize("stem", ["cifar", "cifar-maxpool"])
def test_interpreted_networks_train_as_with_pytorchs_norms(monkeypatch: pytest.MonkeyPatch, stem: str) -> None:
    from tests.support.narrow.narrow_resnet import narrow_resnet18

    monkeypatch.setattr("torchvision.models.resnet18", narrow_resnet18)
    models = []
    for batch_norm in ("native", "fused"):
        model = build_model(ModelConfig.model_validate({"stem": stem}), 10, seed=0)
        numerics = Numerics(precision="fp32", channels_last=True, batch_norm=batch_norm)
        model = numerics.apply_to(model)
        set_train_mode(model, 1)  # the stem's norm keeps its statistics, and is not fused
        model(drawn((4, 3, 16, 16), 0)).square().mean().backward()
        models.append(model)
    native, fused = models
    for name, value in native.state_dict().items():
        assert torch.allclose(fused.state_dict()[name], value, rtol=1e-4, atol=1e-6), name
    gradients = dict(fused.named_parameters())
    for name, parameter in native.named_parameters():
        if parameter.grad is None:
            assert gradients[name].grad is None
        else:
            assert deviation(gradients[name].grad, parameter.grad) < 1e-3, name


@pytest.fixture
def precompiled() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="compiles")
@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_without_spills(capability: int, precompiled: Path) -> None:
    """For bf16, as in training; ptxas is NVIDIA's assembler, which comes with Triton."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from trainer.model.norm import kernels

    sizes = {
        "ROWS": kernels.TILE_ROWS,
        "CHANNELS": 64,
        "TILES": kernels.TILES,
        "PART_ROWS": 1024,
        "PARTS": kernels.MOST_PARTS,
    }
    constants = sizes | {"ADDS": True, "RELU": True}
    ptxas = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
    names = ("moments", "combine_moments", "normalize", "sum_gradients", "combine_sums", "input_gradients")
    for name in names:
        kernel = getattr(kernels, name)
        chosen = {argument: constants[argument] for argument in kernel.arg_names if argument in constants}
        signature = {argument: _kind(argument, chosen) for argument in kernel.arg_names}
        # Memory as torch allocates it, and channels as the network has them.
        even = [
            place for place, argument in enumerate(kernel.arg_names) if signature[argument][0] == "*" or argument == "C"
        ]
        attributes = {(place,): [["tt.divisibility", 16]] for place in even}
        source = ASTSource(fn=kernel, signature=signature, constexprs=chosen, attrs=attributes)
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        (precompiled / "kernel.ptx").write_text(compiled.asm["ptx"])
        target = re.search(r"\.target (\w+)", compiled.asm["ptx"])
        assert target is not None
        assert target[1].startswith(f"sm_{capability}")
        command = [str(ptxas), "-v", f"--gpu-name={target[1]}", "kernel.ptx", "-o", "kernel.bin"]
        done = subprocess.run(command, cwd=precompiled, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said = done.stdout + done.stderr
        assert "0 bytes spill stores, 0 bytes spill loads" in said, name
        registers = re.search(r"Used (\d+) registers", said)
        assert registers is not None
        assert int(registers[1]) <= 128, f"{name}: four blocks of four warps must fit on a multiprocessor"


def _kind(argument: str, constants: Container[str]) -> str:
    if argument in constants:
        return "constexpr"
    if argument in ("R", "C", "P"):
        return "i32"
    if argument in ("momentum", "eps"):
        return "fp32"
    return "*bf16" if argument.endswith("_RC") else "*fp32"


def test_a_cpu_uses_pytorchs_norms(make_config: ConfigMaker) -> None:
    assert INTERPRETED or why_not_fused(CPU) == "it needs an NVIDIA GPU"
    assert {numerics.batch_norm for numerics in _candidates(make_config("run.precision=auto"), CPU)} == {"native"}
    if not INTERPRETED:
        with pytest.raises(
            DeviceError, match=r"run\.batch_norm: fused is not possible here: it needs an NVIDIA GPU; set"
        ):
            _candidates(make_config("run.batch_norm=fused"), CPU)
    with pytest.raises(ConfigError, match="remove batch_norm=fused"):
        make_config("run.batch_norm=fused", "run.compile=default")


@pytest.mark.parametrize(("reason", "used"), [("Triton failed: no compiler", "native"), ("", "fused")])
def test_a_run_is_resumed_with_pytorchs_norms_where_its_own_are_impossible(
    make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch, reason: str, used: str
) -> None:
    recorded = {"precision": "bf16", "channels_last": True, "batch_norm": "fused"}
    monkeypatch.setattr(autotune, "why_not_fused", lambda _: reason)
    assert autotune.recorded_numerics(make_config(), recorded, torch.device("cuda")).batch_norm == used


@interpreted
def test_interpreted_kernels_that_fail_are_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.model.norm import kernels

    assert why_not_fused(CPU) == ""
    why_not_fused.cache_clear()
    monkeypatch.setattr(kernels, "TILE_ROWS", 3)  # not a power of two
    assert why_not_fused(CPU).startswith("Triton failed: ")
    why_not_fused.cache_clear()
