"""The processes of one training, as started by `torchrun`: the first one leads, the others follow its orders.

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
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from trainer.errors import R18Error, first_line, is_out_of_memory
from trainer.host.torchrun import rank, restarts, world_size

# Longest wait for an order: a run may be paused for long. A process that dies is noticed by its closed connection.
_ORDER_TIMEOUT = timedelta(days=100)
_STEP_TIMEOUT = timedelta(minutes=30)  # longest wait for other processes within a step, or while they read the data
# Words in errors that come from another process, not from a computation of this one.
_PEER_ERROR_WORDS = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "socket")
_NUMBERS = 3  # numbers in an order


class Order(enum.IntEnum):
    """An order of the leader to all processes."""

    STEP = 1  # one optimizer step: epoch, step in the epoch, learning rate
    PREPARE = 2  # train all stages but this many
    SHARE = 3  # copy the leader's weights, statistics, momenta and loss scale
    END = 4


class PeerLostError(R18Error):
    """A process of a joint training has failed, so that none of them can continue."""


class Peers:
    """The process group, seen from this process, which joins it."""

    def __init__(self) -> None:
        self.rank, self.world = rank(), world_size()
        # Orders are numbers on the CPU, and do not wait for a GPU.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        where: dict[str, Any] = {}
        kept = _launchers_store()
        if kept is not None:
            # torchrun keeps it over restarts: addresses of the last attempt must not be mistaken for those of this one.
            store = distributed.PrefixStore(f"r18-tui/attempt-{restarts()}", kept)  # type: ignore[attr-defined]
            where = {"store": store, "rank": self.rank, "world_size": self.world}
        distributed.init_process_group(backend, timeout=_STEP_TIMEOUT, **where)
        self._orders: Any = distributed.new_group(backend="gloo", timeout=_ORDER_TIMEOUT)

    @property
    def leads(self) -> bool:
        """Whether this process is the leader."""
        return self.rank == 0

    def order(self, order: Order, *numbers: float) -> None:
        """Send an order and its arguments to the other processes; does nothing on those."""
        if self.leads:
            unused = [0.0] * (_NUMBERS - len(numbers))
            self._broadcast(torch.tensor([float(order), *numbers, *unused], dtype=torch.float64))

    def next_order(self) -> tuple[Order, list[float]]:
        """Block until the leader's next order."""
        message = torch.zeros(1 + _NUMBERS, dtype=torch.float64)
        self._broadcast(message)
        order, *numbers = message.tolist()
        return Order(int(order)), numbers

    def broadcast_json(self, values: dict[str, Any]) -> None:
        """Broadcast a JSON object to the other processes."""
        message = torch.frombuffer(bytearray(json.dumps(values).encode()), dtype=torch.uint8)
        self._broadcast(torch.tensor([len(message)]))
        self._broadcast(message)

    def receive_json(self) -> dict[str, Any]:
        """Block until the leader broadcasts a JSON object, and return it."""
        length = torch.zeros(1, dtype=torch.int64)
        self._broadcast(length)
        message = torch.zeros(int(length), dtype=torch.uint8)
        self._broadcast(message)
        values: dict[str, Any] = json.loads(message.numpy().tobytes())
        return values

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Broadcast the leader's float32 tensors, in place: of equal shapes in all processes, in any memory format."""
        joined = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        try:
            distributed.broadcast(joined, src=0)
        except RuntimeError as error:
            raise to_peer_error(error) from error
        if not self.leads:
            for tensor, part in zip(tensors, joined.split([tensor.numel() for tensor in tensors]), strict=True):
                tensor.detach().copy_(part.view(tensor.shape))

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace float32 vectors by their mean over all processes, in place."""
        joined = torch.cat([*tensors])
        try:
            distributed.all_reduce(joined)
        except RuntimeError as error:
            raise to_peer_error(error) from error
        joined /= self.world
        for tensor, part in zip(tensors, joined.split([len(tensor) for tensor in tensors]), strict=True):
            tensor.copy_(part)

    def parallel(self, model: nn.Module) -> DistributedDataParallel:
        """Wrap the model to average gradients over all processes; it needs a new wrapper when frozen stages change."""
        # The step averages statistics itself, since it must restore them where it is skipped. Newer versions of
        # PyTorch warn about the older name of the option.
        known = inspect.signature(DistributedDataParallel).parameters
        option = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        return DistributedDataParallel(model, **{option: False})  # type: ignore[arg-type]

    def close(self) -> None:
        """Destroy the process group without notifying the other processes."""
        distributed.destroy_process_group()

    def _broadcast(self, message: Tensor) -> None:
        try:
            distributed.broadcast(message, src=0, group=self._orders)
        except RuntimeError as error:
            raise to_peer_error(error) from error


def to_peer_error(error: Exception) -> Exception:
    """The error to raise with several processes: `PeerLostError` if their exchange failed, else the error itself."""
    said = first_line(error)
    if is_out_of_memory(error):
        return PeerLostError(
            f"out of memory in process {rank()} of {world_size()}: {said}. Batches are not split "
            "automatically with several processes: start again with a larger train.grad_accum_steps, or a smaller data.batch_size"
        )
    if not any(word in str(error).lower() for word in _PEER_ERROR_WORDS):
        return error
    return PeerLostError(
        f"another process of this training has died or cannot be reached: {said}. Its error, if any, is in log.txt or in "
        "torchrun's output; `torchrun --max-restarts N` restarts all processes from the last checkpoint"
    )


class LauncherStore:
    """What restarted processes must know, in torchrun's store, which outlives them; without it, nothing is kept.

    Key `run` is the directory of their run; `over` is set once the training has been ended on purpose.
    """

    def __init__(self) -> None:
        self._store = _launchers_store()

    def get(self, key: Literal["run", "over"]) -> str | None:
        """The text kept under a key; None if none was set, or without torchrun's store."""
        if self._store is None or not self._store.check([f"r18-tui/{key}"]):
            return None
        return str(self._store.get(f"r18-tui/{key}").decode())

    def set(self, key: Literal["run", "over"], value: str) -> None:
        """Keep a text for processes that torchrun may start later."""
        if self._store is not None:
            with contextlib.suppress(RuntimeError):  # a torchrun that is ending itself restarts nothing
                self._store.set(f"r18-tui/{key}", value)


def _launchers_store() -> Any:
    """The store that torchrun keeps for its processes; None where there is none."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return distributed.TCPStore(host, port, is_master=False)  # type: ignore[attr-defined]
