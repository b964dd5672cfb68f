"""The processes of one training, as `torchrun` starts them: the first one leads, the others do what it says.

The leader owns the run: its directory, its log, commands, evaluations, checkpoints. Before everything that needs all of them it
sends an order, so that a pause, a stop or a return to an earlier state meets every process at the same step: the others
simply get no further order. Gradients are exchanged by PyTorch's DistributedDataParallel while they are computed.

Each process takes its part of the global batch, by position in the epoch's order, and batch norm sees that part alone: N
processes train as one process does with `train.grad_accum_steps` N.
"""

from __future__ import annotations

import contextlib
import enum
import inspect
import json
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from trainer.errors import R18Error, first_line, is_out_of_memory
from trainer.host.torchrun import rank, restarts, world_size

_PATIENCE = timedelta(days=100)
"""How long a process waits for an order: a run may be paused for long. One that dies is found out by its closed connection."""

_STEP_PATIENCE = timedelta(minutes=30)
"""How long one waits for the others within a step, or while they read the data."""

_OF_THE_EXCHANGE = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "socket")
"""Words of errors that come from another process, and not from a computation of this one."""

_SYNC_BUFFERS = (
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else "broadcast_buffers"
)
"""Newer versions of PyTorch warn of the older name."""

_NUMBERS = 3
"""That an order can carry."""


class Order(enum.IntEnum):
    """What the leader asks for."""

    STEP = 1
    """One optimizer step: epoch, step in the epoch, rate."""
    PREPARE = 2
    """Train all but this many stages."""
    SHARE = 3
    """Take over the leader's weights, statistics, momenta and scale of the loss."""
    END = 4
    """The training is over."""


class PeerLostError(R18Error):
    """One of the processes that train together cannot go on, so that none can."""


class Peers:
    """This process among the others.

    Attributes:
        rank: Of this one; 0 leads.
        world: How many there are.
    """

    def __init__(self) -> None:
        """Meet the others."""
        self.rank, self.world = rank(), world_size()
        # Orders are numbers of the CPU, and do not wait for a GPU.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        kept = _launchers_store()
        if kept is not None:
            # torchrun keeps it over restarts: addresses of the last attempt must not be taken for those of this one.
            store = distributed.PrefixStore(  # type: ignore[attr-defined]
                f"r18-tui/attempt-{restarts()}", kept
            )
            distributed.init_process_group(
                backend, store=store, rank=self.rank, world_size=self.world, timeout=_STEP_PATIENCE
            )
        else:
            distributed.init_process_group(backend, timeout=_STEP_PATIENCE)
        self._orders: Any = distributed.new_group(backend="gloo", timeout=_PATIENCE)

    @property
    def leads(self) -> bool:
        """Whether this process gives the orders."""
        return self.rank == 0

    def order(self, order: Order, *numbers: float) -> None:
        """Send an order to the others; those do nothing here.

        Args:
            order: What all of them do next.
            numbers: What it needs.
        """
        if self.leads:
            self._broadcast(
                torch.tensor([float(order), *numbers, *[0.0] * (_NUMBERS - len(numbers))], dtype=torch.float64)
            )

    def next_order(self) -> tuple[Order, list[float]]:
        """Wait for the leader's next order."""
        message = torch.zeros(1 + _NUMBERS, dtype=torch.float64)
        self._broadcast(message)
        order, *numbers = message.tolist()
        return Order(int(order)), numbers

    def tell(self, values: dict[str, Any]) -> None:
        """Send what JSON can hold to the others."""
        message = torch.frombuffer(bytearray(json.dumps(values).encode()), dtype=torch.uint8)
        self._broadcast(torch.tensor([len(message)]))
        self._broadcast(message)

    def told(self) -> dict[str, Any]:
        """Wait for what the leader tells."""
        length = torch.zeros(1, dtype=torch.int64)
        self._broadcast(length)
        message = torch.zeros(int(length), dtype=torch.uint8)
        self._broadcast(message)
        values: dict[str, Any] = json.loads(message.numpy().tobytes())
        return values

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Make the leader's values everybody's, in place.

        Args:
            tensors: float32, the same ones in every process, in any memory format.
        """
        joined = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        try:
            distributed.broadcast(joined, src=0)
        except RuntimeError as error:
            raise among_peers(error) from error
        if not self.leads:
            for tensor, part in zip(tensors, joined.split([tensor.numel() for tensor in tensors]), strict=True):
                tensor.detach().copy_(part.view(tensor.shape))

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace values by their mean over all processes, in place.

        Args:
            tensors: float32 vectors.
        """
        joined = torch.cat([*tensors])
        try:
            distributed.all_reduce(joined)
        except RuntimeError as error:
            raise among_peers(error) from error
        joined /= self.world
        for tensor, part in zip(tensors, joined.split([len(tensor) for tensor in tensors]), strict=True):
            tensor.copy_(part)

    def parallel(self, model: nn.Module) -> DistributedDataParallel:
        """The model, whose gradients are averaged over all processes while they are computed.

        Args:
            model: With what is frozen now; another one is needed when that changes.
        """
        # Statistics are averaged by the step, which must take them back where it is left out.
        return DistributedDataParallel(model, **{_SYNC_BUFFERS: False})  # type: ignore[arg-type]

    def close(self) -> None:
        """Let the others go, without a word."""
        distributed.destroy_process_group()

    def _broadcast(self, message: Tensor) -> None:
        try:
            distributed.broadcast(message, src=0, group=self._orders)
        except RuntimeError as error:
            raise among_peers(error) from error


def among_peers(error: Exception) -> Exception:
    """What an error of one process means where several train together: the error itself, unless it is one of their exchange."""
    said = first_line(error)
    if is_out_of_memory(error):
        return PeerLostError(
            f"out of memory in process {rank()} of {world_size()}: {said}. Several processes do not cut "
            "their batches by themselves: start again with a larger train.grad_accum_steps, or a smaller data.batch_size"
        )
    if not any(word in str(error).lower() for word in _OF_THE_EXCHANGE):
        return error
    return PeerLostError(
        f"another process of this training has died, or cannot be reached: {said}. If it said why, log.txt or what torchrun "
        "printed has it; with `torchrun --max-restarts N` all of them are started again, from the last checkpoint"
    )


class LauncherStore:
    """Strings by key that torchrun keeps for its processes, and that outlive them."""

    _RUN, _OVER = "r18-tui/run", "r18-tui/over"

    def __init__(self) -> None:
        """Connect; without torchrun's store, nothing is kept."""
        self._store = _launchers_store()

    @property
    def run(self) -> str | None:
        """The run that these processes trained before they were started anew; None where it was not begun, or is not known."""
        return self._get(self._RUN)

    def remember_run(self, path: Path) -> None:
        """Keep which run this is."""
        self._set(self._RUN, str(path))

    @property
    def over(self) -> bool:
        """Whether the training was ended on purpose, so that processes that are started anew have nothing to do."""
        return self._get(self._OVER) is not None

    def note_over(self) -> None:
        """Keep that there is nothing to start anew."""
        self._set(self._OVER, "yes")

    def _get(self, key: str) -> str | None:
        if self._store is None or not self._store.check([key]):
            return None
        return str(self._store.get(key).decode())

    def _set(self, key: str, value: str) -> None:
        if self._store is not None:
            with contextlib.suppress(RuntimeError):  # of a torchrun that is ending itself, which starts nothing anew
                self._store.set(key, value)


def _launchers_store() -> Any:
    """What torchrun itself keeps for its processes; None where it keeps nothing."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return distributed.TCPStore(host, port, is_master=False)  # type: ignore[attr-defined]
