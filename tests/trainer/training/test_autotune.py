"""The timed choice of precision and memory format: the choice, excluded candidates, and no side effects."""

from __future__ import annotations

import math

import pytest
import torch

from tests.conftest import ConfigMaker
from tests.support.small_session import set_clock
from trainer.config.schema import Config
from trainer.data.augment.augment import Augment, Normalize
from trainer.data.batches.batches import Batch
from trainer.errors import ConfigError, DeviceError
from trainer.model.numerics import Numerics, Precision
from trainer.model.resnet import build_model
from trainer.training import autotune
from trainer.training.autotune import autotune_numerics, precisions, recorded_numerics

CPU = torch.device("cpu")


@pytest.fixture
def config(make_config: ConfigMaker) -> Config:
    return make_config("run.precision=auto", "run.channels_last=auto")


def choose(config: Config) -> tuple[Numerics, dict[str, float], list[str]]:
    """The choice, its timings, and the progress messages."""
    messages: list[str] = []
    model = build_model(config.model, 10, config.run.seed)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    augment = Augment(config=config.data, normalize=Normalize.of([0.5] * 3, [0.5] * 3, CPU), seed=config.run.seed)
    rows = torch.arange(8)
    pixels = (torch.arange(8 * 8 * 8 * 3).view(8, 8, 8, 3) % 251).to(torch.uint8)
    batch = Batch(pixels, rows, rows, rows, rows)
    numerics, timings = autotune_numerics(
        config, model, augment, lambda: batch, lambda detail, _: messages.append(detail), device=CPU
    )
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), f"the trial changed {name}"
    return numerics, timings, messages


def pretend(monkeypatch: pytest.MonkeyPatch, outcome: dict[tuple[str, bool], tuple[float, float] | Exception]) -> None:
    """Give each candidate seconds per step and a loss, or an error."""

    def time(trial: autotune._Trial, *, give_up_s: float) -> autotune._Timing:
        numerics = trial._numerics
        result = outcome[numerics.precision, numerics.channels_last]
        if isinstance(result, Exception):
            raise result
        step_s, loss = result
        return autotune._Timing(numerics, step_s, step_s if step_s <= give_up_s else math.inf, loss)

    def step(trial: autotune._Trial) -> float:
        result = outcome[trial._numerics.precision, trial._numerics.channels_last]
        assert not isinstance(result, Exception)
        return result[0]

    monkeypatch.setattr(autotune._Trial, "time", time)
    monkeypatch.setattr(autotune._Trial, "step", step)


def test_candidates_are_timed_without_changing_the_model(make_config: ConfigMaker) -> None:
    auto = make_config("run.precision=auto", "run.channels_last=auto", "run.convolution=auto")
    numerics, timings, messages = choose(auto)
    assert {"fp32 channels_last products", "fp32 channels_last", "fp32 contiguous"} & {*timings}
    assert timings[autotune.describe(numerics)] == min(timings.values())
    assert all(milliseconds > 0 for milliseconds in timings.values())
    messages = [message.removeprefix("timing ") for message in dict.fromkeys(messages)]
    if "bf16 channels_last products" not in messages:  # bf16 is slow here
        messages.insert(2, "bf16 channels_last products")
    assert messages[:3] == ["fp32 channels_last", "bf16 channels_last", "bf16 channels_last products"]
    assert messages[-1] in ("fp32 contiguous", "bf16 contiguous")


def test_a_slow_machine_leaves_candidates_out(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = set_clock(monkeypatch, autotune)

    def time(trial: autotune._Trial, *, give_up_s: float) -> autotune._Timing:
        clock.now += 5.0
        return autotune._Timing(trial._numerics, 0.1, 0.3 if trial._numerics.precision == "fp32" else 0.2, 2.3)

    monkeypatch.setattr(autotune._Trial, "time", time)
    numerics, timings, _ = choose(config)
    assert numerics == Numerics(precision="bf16", channels_last=True)
    assert timings == {"fp32 channels_last": 300.0, "bf16 channels_last": 200.0}, "two of four in eight seconds"


def test_a_disturbed_measurement_does_not_decide(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    # Seconds of each candidate by turn: the best one is disturbed in its first turn.
    turns = {True: [0.25, 0.19, 0.2, 0.2], False: [0.21, 0.22, 0.21, 0.21]}

    def time(trial: autotune._Trial, *, give_up_s: float) -> autotune._Timing:
        if trial._numerics.precision == "bf16":
            return autotune._Timing(trial._numerics, 1.0, math.inf, 2.3)
        return autotune._Timing(trial._numerics, 0.03, trial.step(), 2.3)

    monkeypatch.setattr(autotune._Trial, "time", time)
    monkeypatch.setattr(autotune._Trial, "step", lambda trial: turns[trial._numerics.channels_last].pop(0))
    numerics, timings, _ = choose(config)
    assert numerics == Numerics(precision="fp32", channels_last=True)
    assert timings == {"fp32 channels_last": 190.0, "fp32 contiguous": 210.0}


def test_a_much_slower_precision_is_not_tried_again(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(
        monkeypatch,
        {
            ("fp32", True): (0.2, 2.3), ("fp32", False): (0.3, 2.3),
            ("bf16", True): (2.0, 2.3), ("bf16", False): AssertionError("tried"),
        },
    )  # fmt: skip
    numerics, timings, _ = choose(config)
    assert numerics == Numerics(precision="fp32", channels_last=True)
    assert timings == {"fp32 channels_last": 200.0, "fp32 contiguous": 300.0}


@pytest.mark.parametrize(
    ("capability", "hip", "tried"),
    [((9, 0), None, ["tf32", "bf16"]), ((7, 5), None, ["fp32", "fp16"]), ((9, 0), "6.4", ["fp32", "bf16"])],
)
def test_a_gpu_is_timed_in_the_precisions_of_its_units(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], hip: str | None, tried: list[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: capability >= (8, 0))
    monkeypatch.setattr(torch.version, "hip", hip)
    assert precisions(torch.device("cuda")) == tried


def test_tf32_is_refused_where_there_is_none(make_config: ConfigMaker) -> None:
    with pytest.raises(DeviceError, match=r"run\.precision: tf32 needs an NVIDIA GPU from Ampere on"):
        choose(make_config("run.precision=tf32"))


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", False), ("tf32", True), ("bf16", True)])
def test_tf32_is_used_only_where_the_precision_allows_it(precision: Precision, allowed: bool) -> None:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:
        Numerics(precision=precision, channels_last=True).apply_to(torch.nn.Linear(1, 1))
        assert torch.backends.cudnn.allow_tf32 is allowed
        assert torch.backends.cuda.matmul.allow_tf32 is allowed
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def test_compiled_networks_use_pytorchs_convolutions(make_config: ConfigMaker) -> None:
    for compiled, convolutions in (("none", ["native", "products"]), ("default", ["native"])):
        config = make_config("run.convolution=auto", f"run.compile={compiled}")
        assert [one.convolution for one in autotune._candidates(config, CPU)] == convolutions
    with pytest.raises(ConfigError, match="remove convolution=products"):
        make_config("run.convolution=products", "run.compile=default")


def test_a_resume_uses_the_recorded_numerics(make_config: ConfigMaker) -> None:
    timed, configured = make_config("run.convolution=auto"), make_config("run.convolution=products")
    gpu = torch.device("cuda")
    recorded = {"precision": "fp32", "channels_last": True, "timings_ms": {}, "cache": "device"}
    assert recorded_numerics(timed, recorded, CPU) == Numerics(precision="fp32", channels_last=True)
    products = recorded | {"convolution": "products"}
    assert recorded_numerics(timed, products, CPU).convolution == "products"
    assert recorded_numerics(timed, products, gpu).convolution == "native"
    assert recorded_numerics(configured, products, gpu).convolution == "products"


def test_configured_numerics_are_not_timed(make_config: ConfigMaker) -> None:
    numerics, timings, messages = choose(make_config("run.precision=fp32", "run.channels_last=false"))
    assert (numerics, timings, messages) == (Numerics(precision="fp32", channels_last=False), {}, [])


def test_a_fast_precision_with_another_loss_is_excluded(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(
        monkeypatch,
        {
            ("fp32", True): (0.2, 2.3), ("fp32", False): (0.3, 2.3),
            ("bf16", True): (0.1, 3.9), ("bf16", False): (0.15, 2.31),
        },
    )  # fmt: skip
    numerics, timings, _ = choose(config)
    assert numerics == Numerics(precision="bf16", channels_last=False)
    assert "bf16 channels_last" not in timings


def test_a_candidate_that_does_not_fit_into_memory_is_skipped(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    full = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
    pretend(
        monkeypatch,
        {("fp32", True): full, ("fp32", False): full, ("bf16", True): (0.2, 2.3), ("bf16", False): MemoryError()},
    )
    numerics, timings, _ = choose(config)
    assert numerics == Numerics(precision="bf16", channels_last=True)
    assert timings == {"bf16 channels_last": 200.0}


def test_out_of_memory_is_reported_if_no_candidate_fits(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    full = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    pretend(monkeypatch, {(p, layout): full for p in ("fp32", "bf16") for layout in (True, False)})
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        choose(config)


def test_another_error_of_a_trial_is_not_hidden(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {("fp32", True): RuntimeError("expected 3 channels, got 4")})
    with pytest.raises(RuntimeError, match="expected 3 channels"):
        choose(config)
