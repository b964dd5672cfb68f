"""`layer_stats` compared with plain norms, histograms and silent channels; the windows of `metrics`."""

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
    """Largest magnitude, and counts in 24 bins from its negative to it; the last bin includes its end."""
    finite = [value for value in values if math.isfinite(value)]
    reach = max((abs(value) for value in finite), default=0.0)
    counts = [0] * BINS
    for value in finite if reach else ():
        counts[min(math.floor((value + reach) / (2 * reach) * BINS), BINS - 1)] += 1
    return reach, counts if reach else []


def network_with_gradients(seed: int) -> TinyResNet:
    """A network with gradients for everything but its stem."""
    model = TinyResNet(4, seed)
    images_NCHW = torch.randn(6, 3, 7, 9, generator=torch.Generator().manual_seed(seed))
    model(images_NCHW).square().mean().backward()
    model.conv1.weight.grad = None
    return model


@pytest.mark.parametrize("seed", range(4))
def test_norms_and_histograms_describe_all_values(seed: int) -> None:
    model = network_with_gradients(seed)
    stats = layer_statistics(model, step=9, epoch=2.25)
    assert (stats.step, stats.epoch) == (9, 2.25)
    names = [
        "conv1", "layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1", "layer2.0.conv2", "layer2.0.downsample.0", "fc",
    ]  # fmt: skip
    assert stats.names == names
    for index, name in enumerate(names):
        weight = model.get_parameter(f"{name}.weight")
        assert stats.parameters[index] == weight.numel()
        assert_describes(weight, stats.weight_norms[index], stats.weight_ranges[index], stats.weights[index])
        if weight.grad is None:
            assert (stats.gradient_norms[index], stats.gradient_ranges[index], stats.gradients[index]) == (
                None,
                None,
                [],
            )
        else:
            gradient_range, gradients = stats.gradient_ranges[index], stats.gradients[index]
            assert_describes(weight.grad, stats.gradient_norms[index], gradient_range, gradients)
    assert [norm is None for norm in stats.gradient_norms] == [True] + [False] * 6


def assert_describes(tensor: Tensor, norm: float | None, reach: float | None, counts: list[int]) -> None:
    """Compare statistics of a tensor with all its values, to four digits; a value at a bin's edge may count on either side."""
    values = tensor.detach().double().flatten().tolist()
    assert norm == pytest.approx(math.sqrt(sum(value * value for value in values)), rel=6e-4)
    plain_reach, plain_counts = plain_histogram(values)
    assert reach == pytest.approx(plain_reach, rel=6e-4)
    assert sum(counts) == len(values)
    differing = sum(abs(one - other) for one, other in zip(counts, plain_counts, strict=True))
    assert differing <= 2


def test_a_large_layer_is_sampled_evenly_but_its_norm_is_exact() -> None:
    """Every ninth of 256 x 256 weights is sampled; each weight is its column's number, and all columns occur equally often."""
    model = nn.Sequential(nn.Linear(256, 256))
    with torch.no_grad():
        model[0].weight.copy_((torch.arange(256) - 127.5).expand(256, 256))  # type: ignore[operator]
    stats = layer_statistics(model, step=1, epoch=1.0)
    norm = math.sqrt(256 * sum((column - 127.5) ** 2 for column in range(256)))
    assert stats.weight_norms == [pytest.approx(norm, rel=6e-4)]
    assert stats.weight_ranges == [127.5]
    _, per_row = plain_histogram([column - 127.5 for column in range(256)])
    assert sum(stats.weights[0]) == -(-(256 * 256) // 9)
    shares = [count / (256 * 256 / 9) for count in stats.weights[0]]
    assert shares == pytest.approx([count / 256 for count in per_row], abs=1e-3)


def test_non_finite_values_make_the_norm_nan_and_are_not_in_the_histogram() -> None:
    model = nn.Sequential(nn.Linear(5, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, math.nan, -2.0, math.inf, 0.5]]))  # type: ignore[operator]
    stats = layer_statistics(model, step=1, epoch=1.0)
    assert math.isnan(number(stats.weight_norms[0]))
    assert (stats.weight_ranges[0], stats.weights[0]) == plain_histogram([1.0, -2.0, 0.5])
    nn.init.zeros_(model[0].weight)  # type: ignore[arg-type]
    flat = layer_statistics(model, step=1, epoch=1.0)
    assert (flat.weight_norms, flat.weight_ranges, flat.weights) == ([0.0], [0.0], [[]])


@settings(max_examples=30, deadline=None)
@given(
    batches=st.lists(st.integers(1, 5), min_size=1, max_size=4), filled=st.integers(0, 3), seed=st.integers(0, 10**6),
    silent=st.sampled_from([0.0, 0.3, 0.7]),
)  # fmt: skip
def test_silent_channels_are_silent_for_all_images_of_all_batches(
    batches: list[int], filled: int, seed: int, silent: float
) -> None:
    model = TinyResNet(3, seed, silent).eval()
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(size + filled, 3, 6, 8, generator=generator) for size in batches]
    silence = SilentChannels()
    with torch.no_grad():
        for size, images_NCHW in zip(batches, parts, strict=True):
            with silence.watching(model, size):
                model(images_NCHW)
    images = torch.cat([part[:size] for size, part in zip(batches, parts, strict=True)]).double()
    assert silence.shares() == pytest.approx(plain_silence(model, images), abs=1e-4)


def test_silent_channels_of_a_large_batch_are_judged_by_a_sample() -> None:
    """Every fourth of 128 images is checked: a channel active only for others counts as silent."""
    model = TinyResNet(3, 0).eval()
    images_NCHW = torch.full((128, 3, 4, 4), -1.0)
    images_NCHW[124], images_NCHW[1] = 1.0, 2.0
    with torch.no_grad():
        nn.init.zeros_(model.conv1.weight)
        model.conv1.weight[:, 0, 1, 1] = 1.0
        model.bn1.load_state_dict(nn.BatchNorm2d(5).state_dict())
        model.bn1.bias[:] = torch.tensor([0.0, -1.5, 0.0, 0.0, 0.0])
        silence = SilentChannels()
        with silence.watching(model, 128):
            model(images_NCHW)
    assert silence.shares()["conv1"] == pytest.approx(1 / 5), "the second channel is active only for image 1"


steps = st.lists(
    st.tuples(st.floats(0, 10, width=32), st.sampled_from([0.0, 0.25, 1.0]), st.booleans(), st.integers(1, 64)),
    max_size=CAPACITY,
)


@settings(max_examples=40, deadline=None)
@given(windows=st.lists(st.tuples(steps, st.booleans(), st.floats(0, 9)), min_size=1, max_size=5))
def test_each_window_contains_its_own_steps_in_order(
    windows: list[tuple[list[tuple[float, float, bool, int]], bool, float]],
) -> None:
    """Some windows are collected only when the next one is full; a cancelled step leaves no trace."""
    metrics = StepMetrics(CPU)
    step, wanted, collected = 1, [], []
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
        collected.append(metrics.collect(wait=True))
        metrics.start_copy(seconds)
        if content:
            losses, accuracies, skipped_steps, images_of = (list(column) for column in zip(*content, strict=True))
            lrs = [number / 100 for number in range(begin, step)]
            wanted.append(Window(begin, losses, accuracies, skipped_steps, lrs, images_of, seconds))
        if not late:
            collected.append(metrics.collect())
    collected.append(metrics.collect(wait=True))
    assert [window for window in collected if window is not None] == wanted
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
