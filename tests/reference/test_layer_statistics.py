"""`layer_stats`: norms, histograms and silent channels by hand. `metrics`: what a window of steps holds."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.reference.evaluation_networks import TinyResNet
from tests.reference.evaluation_plain import plain_silence
from trainer.model.layer_stats import SilentChannels, layer_statistics
from trainer.run.log.event import number
from trainer.training.metrics import CAPACITY, StepMetrics, Stopwatch, Window

CPU = torch.device("cpu")
BINS = 24


def plain_histogram(values: list[float]) -> tuple[float, list[int]]:
    """Largest magnitude, and how many values lie in each of 24 bins from minus that to plus that; the last takes its end in."""
    finite = [value for value in values if math.isfinite(value)]
    reach = max((abs(value) for value in finite), default=0.0)
    counts = [0] * BINS
    for value in finite if reach else ():
        counts[min(math.floor((value + reach) / (2 * reach) * BINS), BINS - 1)] += 1
    return reach, counts if reach else []


def trained(seed: int) -> TinyResNet:
    """A network with gradients on everything but its stem."""
    model = TinyResNet(4, seed)
    images_NCHW = torch.randn(6, 3, 7, 9, generator=torch.Generator().manual_seed(seed))
    model(images_NCHW).square().mean().backward()
    model.conv1.weight.grad = None
    return model


@pytest.mark.parametrize("seed", range(4))
def test_norms_and_histograms_are_those_of_every_value(seed: int) -> None:
    model = trained(seed)
    told = layer_statistics(model, step=9, epoch=2.25)
    assert (told.step, told.epoch) == (9, 2.25)
    names = [
        "conv1", "layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1", "layer2.0.conv2", "layer2.0.downsample.0", "fc",
    ]  # fmt: skip
    assert told.names == names
    for index, name in enumerate(names):
        weight = model.get_parameter(f"{name}.weight")
        assert told.parameters[index] == weight.numel()
        holds(weight, told.weight_norms[index], told.weight_ranges[index], told.weights[index])
        if weight.grad is None:
            assert (told.gradient_norms[index], told.gradient_ranges[index], told.gradients[index]) == (None, None, [])
        else:
            holds(weight.grad, told.gradient_norms[index], told.gradient_ranges[index], told.gradients[index])
    assert [norm is None for norm in told.gradient_norms] == [True] + [False] * 6


def holds(tensor: Tensor, norm: float | None, reach: float | None, counts: list[int]) -> None:
    """Hold what is told of a tensor against all its values, to four digits. A value at an edge may fall on either side."""
    values = tensor.detach().double().flatten().tolist()
    assert norm == pytest.approx(math.sqrt(sum(value * value for value in values)), rel=6e-4)
    plain_reach, plain_counts = plain_histogram(values)
    assert reach == pytest.approx(plain_reach, rel=6e-4)
    assert sum(counts) == len(values)
    differing = sum(abs(one - other) for one, other in zip(counts, plain_counts, strict=True))
    assert differing <= 2


def test_a_large_layer_is_sampled_evenly_and_its_norm_is_of_all() -> None:
    """Of 256 x 256 weights every ninth is taken; each row holds the number of its column, and every column comes up alike."""
    model = nn.Sequential(nn.Linear(256, 256))
    with torch.no_grad():
        model[0].weight.copy_((torch.arange(256) - 127.5).expand(256, 256))  # type: ignore[operator]
    told = layer_statistics(model, step=1, epoch=1.0)
    norm = math.sqrt(256 * sum((column - 127.5) ** 2 for column in range(256)))
    assert told.weight_norms == [pytest.approx(norm, rel=6e-4)]
    assert told.weight_ranges == [127.5]
    _, per_row = plain_histogram([column - 127.5 for column in range(256)])
    assert sum(told.weights[0]) == -(-(256 * 256) // 9)
    shares = [count / (256 * 256 / 9) for count in told.weights[0]]
    assert shares == pytest.approx([count / 256 for count in per_row], abs=1e-3)


def test_values_that_are_not_finite_are_in_no_histogram_and_spoil_the_norm() -> None:
    model = nn.Sequential(nn.Linear(5, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, math.nan, -2.0, math.inf, 0.5]]))  # type: ignore[operator]
    told = layer_statistics(model, step=1, epoch=1.0)
    assert math.isnan(number(told.weight_norms[0]))
    assert (told.weight_ranges[0], told.weights[0]) == plain_histogram([1.0, -2.0, 0.5])
    nn.init.zeros_(model[0].weight)  # type: ignore[arg-type]
    flat = layer_statistics(model, step=1, epoch=1.0)
    assert (flat.weight_norms, flat.weight_ranges, flat.weights) == ([0.0], [0.0], [[]])


@settings(max_examples=30, deadline=None)
@given(
    batches=st.lists(st.integers(1, 5), min_size=1, max_size=4), filled=st.integers(0, 3), seed=st.integers(0, 10**6),
    silent=st.sampled_from([0.0, 0.3, 0.7]),
)  # fmt: skip
def test_silent_channels_are_those_of_all_images_of_all_batches(
    batches: list[int], filled: int, seed: int, silent: float
) -> None:
    model = TinyResNet(3, seed, silent).eval()
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(size + filled, 3, 6, 8, generator=generator) for size in batches]
    found = SilentChannels()
    with torch.no_grad():
        for size, images_NCHW in zip(batches, parts, strict=True):
            with found.watching(model, size):
                model(images_NCHW)
    looked_at = torch.cat([part[:size] for size, part in zip(batches, parts, strict=True)]).double()
    assert found.shares() == pytest.approx(plain_silence(model, looked_at), abs=1e-4)


def test_of_many_images_some_of_all_over_the_batch_are_looked_at() -> None:
    """Of 128 images every fourth: a channel that answers to those alone is not silent, and one to others alone is."""
    model = TinyResNet(3, 0).eval()
    images_NCHW = torch.full((128, 3, 4, 4), -1.0)
    images_NCHW[124], images_NCHW[1] = 1.0, 2.0
    with torch.no_grad():
        nn.init.zeros_(model.conv1.weight)
        model.conv1.weight[:, 0, 1, 1] = 1.0
        model.bn1.load_state_dict(nn.BatchNorm2d(5).state_dict())
        model.bn1.bias[:] = torch.tensor([0.0, -1.5, 0.0, 0.0, 0.0])
        found = SilentChannels()
        with found.watching(model, 128):
            model(images_NCHW)
    assert found.shares()["conv1"] == pytest.approx(1 / 5), "only image 1 passes the second channel"


steps = st.lists(
    st.tuples(st.floats(0, 10, width=32), st.sampled_from([0.0, 0.25, 1.0]), st.booleans(), st.integers(1, 64)),
    max_size=CAPACITY,
)


@settings(max_examples=40, deadline=None)
@given(windows=st.lists(st.tuples(steps, st.booleans(), st.floats(0, 9)), min_size=1, max_size=5))
def test_each_window_holds_its_own_steps_in_order(
    windows: list[tuple[list[tuple[float, float, bool, int]], bool, float]],
) -> None:
    """Some windows are collected only when the next one is full; a step that was not done leaves no trace."""
    metrics = StepMetrics(CPU)
    step, wanted, found = 1, [], []
    for content, late, seconds in windows:
        begin = step
        for loss, accuracy, skipped, images in content:
            metrics.reserve_slot(step, step / 100, images).copy_(torch.tensor([loss, accuracy, float(skipped)]))
            step += 1
        assert len(metrics) == len(content)
        assert metrics.full == (len(content) == CAPACITY)
        if not metrics.full:
            metrics.reserve_slot(step, 1e9, 10**9).fill_(-1.0)
            metrics.discard_slot()
        found.append(metrics.collect(wait=True))
        metrics.start_copy(seconds)
        if content:
            losses, accuracies, skipped_steps, images_of = (list(column) for column in zip(*content, strict=True))
            lrs = [number / 100 for number in range(begin, step)]
            wanted.append(Window(begin, losses, accuracies, skipped_steps, lrs, images_of, seconds))
        if not late:
            found.append(metrics.collect())
    found.append(metrics.collect(wait=True))
    assert [window for window in found if window is not None] == wanted
    metrics.reserve_slot(step, 0.1, 1)
    metrics.forget()
    assert (len(metrics), metrics.collect(wait=True)) == (0, None)


def test_every_second_is_charged_to_one_activity() -> None:
    now = [0.0]
    watch = Stopwatch(lambda: now[0])

    def spend(seconds: float) -> None:
        now[0] += seconds

    spend(5)
    assert watch.switch("data") == "prepare"
    spend(1)
    assert watch.switch("compute") == "data"
    spend(2)
    before = watch.switch("evaluate")
    spend(4)
    watch.switch(before)
    spend(8)
    assert watch.of("data", "compute") == 1 + 2 + 8
    assert watch.of("data", "never") == 1
    watch.switch("pause")
    spend(100)
    assert watch.budget() == {"data": 1.0, "compute": 10.0, "evaluate": 4.0, "save": 0.0}
    assert sum(watch.seconds.values()) == now[0]
