"""Steps replayed over fixed buffers; on the CPU, recorded operations stand in for a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.conftest import ConfigMaker
from tests.support.checkpoints import run_record
from trainer.config.schema import Config
from trainer.data.batches.batches import Batch
from trainer.errors import DeviceError
from trainer.training import step as step_module
from trainer.training.build import build_trainer
from trainer.training.callbacks import LoopCallbacks
from trainer.training.cuda_graph import PLAIN_STEPS, Compute, StepGraph
from trainer.training.distributed import PeerLostError
from trainer.training.loop import Trainer
from trainer.training.nonfinite_gate import NonFiniteGate
from trainer.training.step import TrainStep, why_not_captured

pytestmark = pytest.mark.usefixtures("narrow_network")

SETTINGS = (
    "data.flip=random", "data.crop_pad=2", "data.cutout=2", "data.image_size=16", "data.progressive=[[8, 1]]", "train.epochs=4",
    "train.max_grad_norm=1.0", "data.batch_size=16",
)  # fmt: skip
AUGMENTED = (
    "data.crop_pad=0", "data.resized_crop=0.5", "data.trivial_augment=true", "data.random_erase=0.5", "data.flip=alternate",
    "data.mixup=0.2", "data.cutmix=1.0", "model.dropout=0.2", "train.label_smoothing=0.1", "data.balance=loss",
)  # fmt: skip


class Tape(TorchDispatchMode):
    """Records operations with the tensors that they read and wrote, and repeats them on the same tensors.

    As in a CUDA graph, numbers stay those of the recording, and a value that is read back from a tensor is an error.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._operations: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError(
                "operation not permitted when stream is capturing\nException raised from somewhere in C++"
            )
        written = func(*args, **(kwargs or {}))
        self._operations.append((func, args, kwargs or {}, written))
        return written

    @torch.no_grad()
    def repeat(self) -> None:
        for func, args, kwargs, written in self._operations:
            again = func(*args, **kwargs)
            for tensor, value in zip(tree_leaves(written), tree_leaves(again), strict=True):
                if isinstance(tensor, Tensor) and tensor.data_ptr() != value.data_ptr():
                    tensor.copy_(value)


class SimulatedGraph(StepGraph):
    """Records steps on the CPU; counts captures and replays."""

    kinds: list[int]
    replayed: int

    def _capture(self, compute: Compute, batch: Batch, metrics_3: Tensor) -> Callable[[], None]:
        self.kinds = [*getattr(self, "kinds", []), len(batch)]
        with Tape() as tape:
            compute(batch, metrics_3)
        taken = True  # recording has computed the first step

        def replay() -> None:
            nonlocal taken
            self.replayed = getattr(self, "replayed", 0) + 1
            if not taken:
                tape.repeat()
            taken = False

        return replay


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes steps on the CPU use the simulated graph from then on."""

    def use() -> None:
        monkeypatch.setattr(step_module, "why_not_captured", lambda *_: "")
        monkeypatch.setattr(step_module, "StepGraph", SimulatedGraph)

    return use


def _steps(config: Config, *, epochs: int = 2, odd: bool = False) -> tuple[Trainer, list[Tensor]]:
    """Take five steps in each epoch at a changing rate; the last batch of each may be an `odd` half."""
    trainer = build_trainer(config, Path("runs"), LoopCallbacks(), lambda *_: None, None).trainer
    trainer.train_step.prepare(0)
    trainer.state.optimizer.keep_lrs_on_device()
    metrics: list[Tensor] = []
    for epoch in range(epochs):
        for batch, number in zip(trainer.batches.epoch(epoch, 0), range(5), strict=False):
            assert batch is not None
            part = batch.micro_batches(2)[0] if odd and number == 4 else batch
            metrics.append(torch.zeros(3))
            trainer.train_step(part, epoch=epoch, lr=0.02 / len(metrics), metrics_3=metrics[-1])
    return trainer, metrics


def _assert_equal(actual: tuple[Trainer, list[Tensor]], expected: tuple[Trainer, list[Tensor]]) -> None:
    trainers = actual[0], expected[0]
    assert all(torch.equal(a, b) for a, b in zip(actual[1], expected[1], strict=True))
    states = [trainer.state.snapshot(run_record()).completed() for trainer in trainers]
    assert states[0].state.loss_scale == states[1].state.loss_scale
    for name, value in states[1].tensors.items():
        assert torch.equal(states[0].tensors[name], value), name
    for weight, plain in zip(*(trainer.state.model.parameters() for trainer in trainers), strict=True):
        assert weight.grad is not None
        assert plain.grad is not None
        assert torch.equal(weight.grad, plain.grad), "layer statistics read the gradients of the last step"


@pytest.mark.parametrize(
    "overrides",
    [
        (), AUGMENTED, ("run.precision=fp16",), ("optim.name=muon",), ("train.grad_accum_steps=2", *AUGMENTED),
        ("optim.layer_decay=0.5", "optim.nesterov=true"),
    ],
    ids=["default", "augmented", "fp16", "muon", "micro-batches", "layer decay"],
)  # fmt: skip
def test_replayed_steps_equal_plain_ones(
    make_config: ConfigMaker, captured: Callable[[], None], overrides: tuple[str, ...]
) -> None:
    config = make_config(*SETTINGS, "data.progressive=[]", *overrides)
    plain = _steps(config)
    captured()
    replayed = _steps(config)
    graph = replayed[0].train_step._graph
    assert isinstance(graph, SimulatedGraph)
    assert graph.replayed == 10 - PLAIN_STEPS
    _assert_equal(replayed, plain)


def test_each_image_size_and_an_odd_last_batch_have_graphs_of_their_own(
    make_config: ConfigMaker, captured: Callable[[], None]
) -> None:
    config = make_config(*SETTINGS)
    plain = _steps(config, epochs=5, odd=True)
    captured()
    replayed = _steps(config, epochs=5, odd=True)
    graph = replayed[0].train_step._graph
    assert isinstance(graph, SimulatedGraph)
    assert graph.kinds == [16, 16, 8], "images of two sizes, then the odd batch after three plain steps"
    _assert_equal(replayed, plain)


def test_a_step_that_cannot_be_captured_is_computed_without_a_graph(
    make_config: ConfigMaker, captured: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(*SETTINGS)
    expected = _steps(config)
    captured()
    unchanged = NonFiniteGate.step

    def waiting(gate: NonFiniteGate, loss: Tensor, gradient_norm: Tensor) -> Tensor:
        float(loss)
        return unchanged(gate, loss, gradient_norm)

    monkeypatch.setattr(NonFiniteGate, "step", waiting)
    actual = _steps(config)
    assert actual[0].train_step.remarks == [
        "steps are computed kernel by kernel: no CUDA graph: operation not permitted when stream is capturing"
    ], "reported once"
    monkeypatch.setattr(NonFiniteGate, "step", unchanged)
    assert actual[1][0].equal(expected[1][0])


def test_a_plain_step_that_does_not_fit_beside_graphs_is_repeated_without_them(
    make_config: ConfigMaker, captured: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    captured()
    trainer, _ = _steps(make_config(*SETTINGS))
    step, graph = trainer.train_step, trainer.train_step._graph
    assert graph is not None
    assert graph._captured != {}
    unchanged, failures = TrainStep._gradients, ["graphs", "size"]

    def failing(step: TrainStep, batch: Batch, epoch: int, metrics_2: Tensor) -> None:
        if failures:
            failures.pop()
            raise torch.OutOfMemoryError("CUDA out of memory")
        unchanged(step, batch, epoch, metrics_2)

    monkeypatch.setattr(TrainStep, "_gradients", failing)
    odd = next(batch for batch in trainer.batches.epoch(0, 0) if batch is not None).micro_batches(2)[0]
    failures.pop()
    step(odd, epoch=3, lr=0.01, metrics_3=torch.zeros(3))
    assert graph._captured == {}
    assert step.micro_batches == 1, "batch norm still sees the whole batch"
    failures.append("size")
    step(odd, epoch=3, lr=0.01, metrics_3=torch.zeros(3))
    assert step.micro_batches == 2, "there are no graphs left to drop"


def test_processes_that_cannot_capture_their_exchange_say_what_to_set(
    make_config: ConfigMaker, captured: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Exchange:
        def average(self, tensors: list[Tensor]) -> None:
            raise PeerLostError("another process has died: this NCCL cannot be captured")

    captured()
    trainer, _ = _steps(make_config(*SETTINGS), epochs=1)
    step, batch = trainer.train_step, next(iter(trainer.batches.epoch(0, 0)))
    assert batch is not None
    step.forget_graphs()
    monkeypatch.setattr(step, "peers", Exchange())
    monkeypatch.setattr(SimulatedGraph, "replays", lambda *_: True)
    with pytest.raises(DeviceError, match=r"no CUDA graph: .* resume with run\.cuda_graph=false"):
        step(batch, epoch=0, lr=0.01, metrics_3=torch.zeros(3))


def test_an_error_in_a_plain_step_waits_for_the_other_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the undo of the step would run beside kernels that still write what it restores."""
    waits: list[tuple[str, str]] = []

    class Stream:
        def __init__(self, name: str) -> None:
            self.name = name

        def wait_stream(self, other: Stream) -> None:
            waits.append((self.name, other.name))

    graph = StepGraph(torch.device("cpu"), [])
    graph._stream = Stream("side")  # type: ignore[assignment]
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream("default"))
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    with pytest.raises(RuntimeError, match="bad kernel"), graph.plain_step("kind"):
        raise RuntimeError("bad kernel")
    assert waits == [("side", "default"), ("default", "side")]


def test_unfreezing_and_features_require_a_new_capture(make_config: ConfigMaker, captured: Callable[[], None]) -> None:
    captured()
    trainer, _ = _steps(make_config(*SETTINGS))
    step, graph = trainer.train_step, trainer.train_step._graph
    assert graph is not None
    assert graph._captured
    step.prepare(0)
    step.set_features(None)
    assert graph._captured, "nothing changes after an evaluation"
    step.set_features(torch.zeros(10, 512))
    assert not graph._captured
    trainer, _ = _steps(make_config(*SETTINGS))
    graph = trainer.train_step._graph
    assert graph is not None
    trainer.train_step.prepare(2)
    assert not graph._captured


def test_restoring_momenta_keeps_their_addresses(make_config: ConfigMaker) -> None:
    trainer, _ = _steps(make_config(*SETTINGS))
    optimizer = trainer.state.optimizer
    before = {parameter: state["momentum_buffer"].data_ptr() for parameter, state in optimizer.state.items()}
    values = {parameter: state["momentum_buffer"].clone() for parameter, state in optimizer.state.items()}
    trainer.state.restore(trainer.state.snapshot(run_record()).completed())
    assert {parameter: state["momentum_buffer"].data_ptr() for parameter, state in optimizer.state.items()} == before
    assert all(torch.equal(optimizer.state[parameter]["momentum_buffer"], value) for parameter, value in values.items())


@pytest.mark.parametrize(
    ("override", "device", "reason"),
    [
        ("model.dropout=0.1", "cuda", ""),
        ("run.cuda_graph=false", "cuda", "run.cuda_graph is off"),
        ("data.flip=random", "cpu", "no CUDA device"),
    ],
)
def test_the_reason_for_not_capturing_is_given(
    make_config: ConfigMaker, override: str, device: str, reason: str
) -> None:
    assert why_not_captured(make_config(override), torch.device(device)) == reason
