"""Bit-for-bit reproducibility, and warnings where it is not possible."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.conftest import ConfigMaker, FolderMaker
from tests.support.exact_resume import check_that_stops_change_no_bit
from trainer.model.determinism import restore_surroundings, set_deterministic, surroundings

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def leave_torch_as_it_was() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_stopped_three_times_in_an_epoch_ends_bit_for_bit(
    tmp_path: Path, make_config: ConfigMaker, make_folder: FolderMaker, precision: str
) -> None:
    root = make_folder(per_class=64)
    config = make_config(
        "data.kind=imagefolder", f"data.root={root}", "data.crop_pct=1.0",
        "run.deterministic=true", f"run.precision={precision}", "run.convolution=products", "model.dropout=0.2",
        "data.flip=alternate", "data.cutout=3", "data.batch_size=16", "train.epochs=1",
    )  # fmt: skip
    check_that_stops_change_no_bit(config, tmp_path)


def test_a_nondeterministic_operation_is_refused() -> None:
    values, twice = torch.zeros(3), torch.tensor([0, 0])
    set_deterministic(True)
    with pytest.raises(RuntimeError, match=r"put_.* deterministic"):
        values.put_(twice, torch.ones(2))
    set_deterministic(False)
    values.put_(twice, torch.ones(2))


def test_cudnn_times_its_algorithms_unless_results_must_repeat() -> None:
    for wanted in (True, False):
        set_deterministic(wanted)
        assert torch.backends.cudnn.benchmark is not wanted


def test_a_resume_restores_the_number_of_threads() -> None:
    recorded = surroundings(CPU)
    torch.set_num_threads(recorded["threads"] + 1)
    assert restore_surroundings(recorded, CPU) == []
    assert torch.get_num_threads() == recorded["threads"]


def test_changed_surroundings_are_named() -> None:
    (warning,) = restore_surroundings(surroundings(CPU) | {"torch": "2.6.0", "device": "another"}, CPU)
    assert "torch 2.6.0 -> " in warning
    assert "device another -> " in warning
    (warning,) = restore_surroundings({}, CPU)
    assert "does not record" in warning
