"""Comparison of an exported file with the model: one wrong element of one batch is enough to refuse it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.exported_noise import (
    CALLS,
    HELD_OUT,
    Fault,
    Session,
    error_at,
    make_export,
    no_fault,
    noise_subject,
    reference_logits,
)
from trainer.errors import ExportError
from trainer.export import onnx_file
from trainer.export.export_source import ExportSource
from trainer.export.onnx_file import compare, verdict
from trainer.export.torch_files import check_pt2
from trainer.session import export_run as command


def compared(
    one: ExportSource, monkeypatch: pytest.MonkeyPatch, fault: Fault = no_fault, *, embed: bool = False
) -> tuple[dict[str, Any], Session]:
    one = replace(one, embed=embed)
    session = Session(one, fault)
    monkeypatch.setattr(onnx_file, "open_session", lambda _: session)
    monkeypatch.setattr(onnx_file, "_format", lambda _: {"opset": 18, "ir_version": 8})
    return compare(one, Path("model.onnx")), session


@pytest.mark.parametrize("embed", [False, True])
def test_a_file_with_the_models_answers_passes(monkeypatch: pytest.MonkeyPatch, embed: bool) -> None:
    parity, session = compared(noise_subject(), monkeypatch, embed=embed)
    assert verdict(parity) == ""
    assert parity["max_abs_diff"] < 1e-5
    assert [len(batch) for batch in session.fed] == [1, 2, 7, 64, 64, 64, 64]
    figures = ("images", "held_out_images", "train_images", "top1_agreeing", "tolerance")
    assert [parity[name] for name in figures] == [256, HELD_OUT, 56, 256, 1e-3]
    assert {batch.dtype for batch in session.fed} == {np.dtype(np.uint8 if embed else np.float32)}
    assert len({row.tobytes() for batch in session.fed for row in batch}) == 256, "no image twice"


def test_all_held_out_images_come_before_training_images() -> None:
    one = noise_subject()
    pixels, held_out = one.real_pixels(256)
    assert (len(pixels), held_out) == (256, HELD_OUT)
    rows = [row.numpy().tobytes() for row in pixels]
    expected = {
        name: {row.numpy().tobytes() for row in split.pixels(range(len(split)))}
        for name, split in one.dataset.splits.items()
    }
    assert set(rows[:HELD_OUT]) == expected["val"]
    assert set(rows[HELD_OUT:]) < expected["train"]
    assert one.real_pixels(50)[1] == len(one.real_pixels(50)[0]) == len(one.train_pixels(50)) == 50


@pytest.mark.parametrize("call", range(CALLS))
@pytest.mark.parametrize("by", [0.5, -0.5, float("nan"), float("inf")])
def test_a_single_wrong_element_of_a_batch_is_refused(monkeypatch: pytest.MonkeyPatch, call: int, by: float) -> None:
    parity, _ = compared(noise_subject(), monkeypatch, error_at(call, -1, 1, by))
    assert verdict(parity)
    if np.isfinite(by):
        assert parity["max_abs_diff"] == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("embed", [False, True])
def test_an_error_within_the_tolerance_passes_and_is_reported(monkeypatch: pytest.MonkeyPatch, embed: bool) -> None:
    one = noise_subject(scale=0.0, bias=(3.0, 1.0, 0.0))
    parity, _ = compared(one, monkeypatch, error_at(6, 63, 2, 9e-4), embed=embed)
    assert verdict(parity) == ""
    assert parity["max_abs_diff"] == pytest.approx(9e-4, rel=1e-3)
    parity, _ = compared(one, monkeypatch, error_at(6, 63, 2, 1.1e-3), embed=embed)
    assert "differs by 1.10e-03, more than 0.001" in verdict(parity)


@pytest.mark.parametrize("call", [3, 6])
def test_a_single_other_top_answer_is_refused(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    parity, _ = compared(noise_subject(scale=0.0, bias=(1.0, 0.9995, 0.0)), monkeypatch, error_at(call, 63, 1, 8e-4))
    assert parity["max_abs_diff"] < 1e-3
    assert verdict(parity) == "top-1 agrees on only 255 of 256 images"


@pytest.mark.parametrize("call", range(CALLS))
def test_answers_of_another_shape_are_refused(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    with pytest.raises(ExportError, match=r"the exported model returns \(\d+, 2\) for a batch of \d+, expected"):
        compared(noise_subject(), monkeypatch, lambda now, answers: answers[:, :2] if now == call else answers)


@pytest.mark.parametrize(
    ("difference", "agreeing", "passes"),
    [
        (0.0, 256, True), (1e-3, 256, True), (float(np.nextafter(1e-3, 1)), 256, False), (0.0, 255, False),
        (float("nan"), 256, False), (float("inf"), 256, False),
    ],
)  # fmt: skip
def test_parity_is_judged_by_both_of_its_figures(difference: float, agreeing: int, passes: bool) -> None:
    assert (verdict({"max_abs_diff": difference, "top1_agreeing": agreeing, "images": 256}) == "") is passes


@pytest.mark.parametrize(
    ("differences", "tried"), [([0.0], [True]), ([1.0, 0.0], [True, False]), ([1.0, 1.0], [True, False])]
)
def test_a_wrong_file_is_written_again_without_the_exporters_optimizer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, differences: list[float], tried: list[bool]
) -> None:
    written: list[bool] = []
    monkeypatch.setattr(command, "write_model", lambda *_, optimize: written.append(optimize))
    monkeypatch.setattr(
        command, "compare",
        lambda *_: {"max_abs_diff": differences[len(written) - 1], "top1_agreeing": 1, "images": 1},
    )  # fmt: skip
    export = make_export(noise_subject(), tmp_path)
    if differences[-1]:
        with pytest.raises(ExportError, match=r"does not agree.*: a logit differs by 1\.00e\+00.*nothing was written"):
            export._write_checked_onnx(tmp_path / "model.onnx", {})
    else:
        assert export._write_checked_onnx(tmp_path / "model.onnx", {})["optimized"] is tried[-1]
    assert written == tried


def problem_with(monkeypatch: pytest.MonkeyPatch, one: ExportSource, fault: Fault, *, embed: bool = False) -> str:
    """The problem that is reported for a pt2 program whose answers have a fault."""
    calls = iter(range(CALLS + 1))

    def answer(batch: Tensor) -> Tensor:
        answers = reference_logits(one, batch).softmax(1).float() if embed else one.model(batch)
        return torch.from_numpy(fault(next(calls), answers.numpy()))

    monkeypatch.setattr(torch.export, "load", lambda _: SimpleNamespace(module=lambda: answer))
    problem = ""
    try:
        check_pt2(replace(one, embed=embed), Path("model.pt2"))
    except ExportError as error:
        problem = str(error)
    assert next(calls) == CALLS, "batches of 1, 2, 7 and four of 64"
    return problem


@pytest.mark.parametrize("call", range(CALLS))
@pytest.mark.parametrize("by", [0.5, -0.5, float("nan")])
def test_a_program_with_a_single_wrong_element_is_refused(
    monkeypatch: pytest.MonkeyPatch, call: int, by: float
) -> None:
    assert "an output differs by" in problem_with(monkeypatch, noise_subject(), error_at(call, -1, 1, by))


@pytest.mark.parametrize("embed", [False, True])
def test_a_program_passes_with_errors_up_to_the_tolerance(monkeypatch: pytest.MonkeyPatch, embed: bool) -> None:
    one = noise_subject(scale=0.0, bias=(3.0, 1.0, 0.0))
    assert problem_with(monkeypatch, one, no_fault, embed=embed) == ""
    assert problem_with(monkeypatch, one, error_at(6, 63, 0, -9e-4), embed=embed) == ""
    assert "1.10e-03, more than 0.001" in problem_with(monkeypatch, one, error_at(6, 63, 0, -1.1e-3), embed=embed)
