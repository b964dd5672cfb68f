"""`bench`: measured step times, estimates, and the printed table."""

from __future__ import annotations

import pytest
import torch

from tests.conftest import ConfigMaker
from trainer.cli import main
from trainer.commands.bench import IMAGES, run_s
from trainer.model.numerics import Numerics
from trainer.training import gpu_report, remembered_numerics
from trainer.training.step_timing import Speed, matrix_peak, measure

CPU = torch.device("cpu")


def _speed(images_per_s: float) -> Speed:
    numerics = Numerics(precision="fp32", channels_last=True)
    phases = {"augment": 0.0, "forward": 1.0, "backward": 3.0, "update": 0.0}
    return Speed(numerics=numerics, batch_size=100, step_s=100 / images_per_s, phases_s=phases, gflop=1.0)


def test_a_configuration_is_measured_with_random_pixels(make_config: ConfigMaker) -> None:
    speed = measure(make_config("data.batch_size=256", "data.cutmix=1.0"), CPU, seconds=0.1)
    assert speed.batch_size == 128, "a CPU computes only a part of a larger batch"
    assert speed.images_per_s > 0
    assert set(speed.phases_s) == {"augment", "forward", "backward", "update"}
    assert all(seconds > 0 for seconds in speed.phases_s.values())
    assert sum(speed.shares.values()) == pytest.approx(1.0)
    assert speed.gflop == pytest.approx(6e-9 * 137_000 * 8 * 8 * 128)


def test_known_numerics_are_not_chosen_again(make_config: ConfigMaker) -> None:
    known = Numerics(precision="fp32", channels_last=False)
    auto = make_config("run.precision=auto", "run.channels_last=auto")
    assert measure(auto, CPU, numerics=known, seconds=0.1).numerics is known


def test_an_estimate_counts_small_images_and_evaluations(make_config: ConfigMaker) -> None:
    train, test = IMAGES["digits"]
    plain = make_config("train.epochs=4", "eval.every_epochs=2")
    assert run_s(plain, _speed(1.0)) == pytest.approx(4 * train + 2 * test / 3)
    flipped = make_config("train.epochs=4", "eval.every_epochs=3", "eval.tta=flip")
    assert run_s(flipped, _speed(2.0)) == pytest.approx((4 * train + 2 * 2 * test / 3) / 2)
    growing = make_config("data.image_size=16", "data.progressive=[[8, 2]]", "train.epochs=3", "eval.every_epochs=3")
    assert run_s(growing, _speed(1.0)) == pytest.approx((2 / 4 + 1) * train + test / 3)
    assert run_s(make_config("data.kind=imagefolder"), _speed(1.0)) is None


def test_the_measured_peak_is_plausible() -> None:
    assert 0.1 < matrix_peak(CPU, "fp32", seconds=0.05) < 1e5


def test_bench_prints_a_line_for_each_configuration(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Numerics | None] = []

    def measure(config: object, device: torch.device, *, numerics: Numerics | None) -> Speed:
        measured.append(numerics)
        return _speed(250.0)

    monkeypatch.setattr("trainer.training.step_timing.measure", measure)
    monkeypatch.setattr("trainer.training.step_timing.matrix_peak", lambda *_: 200.0)
    assert main(["bench", "--device", "cpu", "cifar", "cifar-accurate", "finetune"]) == 0
    printed = capsys.readouterr().out
    assert "matrix products: 200 GFLOP/s in fp32" in printed
    lines = [line.split() for line in printed.splitlines()]
    (accurate,) = (line for line in lines if line[:1] == ["cifar-accurate"])
    assert accurate[1:7] == ["250", "0%", "25%", "75%", "0%", "1%"]
    assert "12.6 h" in " ".join(accurate)
    assert "4.0 s per epoch of 1,000 images" in printed
    assert measured == [None, _speed(1.0).numerics, None], (
        "the second configuration has the stem and images of the first"
    )


def test_an_unknown_name_is_refused_before_anything_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "nosuch"]) == 2
    assert "nosuch" in capsys.readouterr().err


def test_a_report_about_a_gpu_needs_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--gpu-report", "--device", "cpu"]) == 2
    assert (
        "--gpu-report: this machine has no GPU that torch can use; r18-tui bench measures a CPU"
        in capsys.readouterr().err
    )


def test_the_report_has_a_line_for_each_kind_of_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_report, "matrix_peak", lambda *_, **__: 200.0)
    monkeypatch.setattr(gpu_report, "copy_speed", lambda *_, **__: 10.0)
    monkeypatch.setattr(gpu_report, "measure", lambda *_, **__: _speed(1000.0))
    lines = list(gpu_report.report(CPU, batches=(8,)))
    assert lines[1] == "matrix products: 0.2 TFLOP/s in bf16; copies: 10 GB/s"
    assert [line.split(":")[0] for line in lines[2:]] == [
        f"batch 8, {norm} batch norm, {way}"
        for norm in ("native", "fused")
        for way in ("one graph", "kernel by kernel", "one graph, Muon")
    ]
    assert "1,000 img/s" in lines[2]


def test_what_was_chosen_by_timing_is_forgotten(capsys: pytest.CaptureFixture[str]) -> None:
    file = remembered_numerics.path()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{}")
    assert main(["bench", "--forget"]) == 0
    assert capsys.readouterr().out == f"{file}: forgotten\n"
    assert main(["bench", "--forget"]) == 0
    assert "nothing is remembered" in capsys.readouterr().out
