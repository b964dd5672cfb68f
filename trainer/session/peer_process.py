"""Training process of a further rank: it has no run of its own and follows the leader (`trainer.training.distributed`)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from trainer.config.loader import build_config
from trainer.config.schema import Config
from trainer.data.augment.augment import Augment
from trainer.data.batches.batches import Batch, Batches
from trainer.data.prepare import prepare_data, worker_count
from trainer.errors import EXIT_OK, DataError
from trainer.host.progress import no_progress
from trainer.host.safe_text import printable
from trainer.host.stop_signals import ignore_stop_signals
from trainer.model.determinism import set_deterministic
from trainer.model.device import choose_device
from trainer.model.numerics import Numerics
from trainer.model.resnet import build_model
from trainer.run.folder.run_dir import RunDir
from trainer.session.error_report import log_traceback
from trainer.training.batch_source import BatchSource
from trainer.training.distributed import Order, Peers
from trainer.training.step import TrainStep, build_step


def follow() -> int:
    """Train as a further rank until the leader ends the run; R18Error when it dies, or its device or data differ."""
    peers = Peers()
    message = peers.receive_json()
    ignore_stop_signals()  # the leader gets them, too: it saves, and then ends all ranks
    # Streamed batches must not be read on the main thread (`trainer.data.batches.stream`).
    with ThreadPoolExecutor(1, thread_name_prefix="training") as executor:
        executor.submit(_main, message, peers).result()
    peers.close()
    return EXIT_OK


def _main(message: dict[str, Any], peers: Peers) -> None:
    try:
        _train_along(build_config(message["config"], {}, "the leader's configuration"), peers)
    except Exception as error:
        # The output of this process may not be visible anywhere.
        log_traceback(RunDir(Path(message["run"])), error)
        raise


def _train_along(config: Config, peers: Peers) -> None:
    """Build the same parts as the leader, which broadcasts what it has measured, and follow it to the end of the run."""
    set_deterministic(config.run.deterministic)
    device = choose_device(config.run.device)
    message = peers.receive_json()  # only now: the leader may have had to download what is read here
    if message.get("over"):
        return
    if config.run.deterministic and device.type == "cpu":
        torch.set_num_threads(message["threads"])
    data = prepare_data(config, device, no_progress, source_statistics=(message["mean"], message["std"]))
    if data.dataset.fingerprint != message["fingerprint"]:
        raise DataError(
            f"process {peers.rank} finds different data from process 0 in {config.data.root}: all machines need the same data"
        )
    numerics = Numerics(**message["numerics"])
    model = build_model(config.model, len(data.dataset.classes), config.run.seed).to(device)
    source = BatchSource(config, data.dataset.splits["train"], device, _warn, peers)
    augment = Augment(config=config.data, normalize=data.normalize, seed=config.run.seed)
    train_step = build_step(
        config, model, augment, numerics,
        class_weights_K=source.weights_K, micro_batches=message["micro_batches"], peers=peers,
    )  # fmt: skip
    batches = source.batches(worker_count(config.data))
    try:
        _follow_orders(train_step, batches, device, peers)
    finally:
        batches.close()


def _follow_orders(train_step: TrainStep, batches: Batches, device: torch.device, peers: Peers) -> None:
    stream: Iterator[Batch | None] = iter(())
    upcoming = (-1, -1)  # epoch and step of the next batch of the stream
    metrics_3 = torch.zeros(3, device=device)
    while True:
        order, numbers = peers.next_order()
        if order is Order.STEP:
            epoch, step = int(numbers[0]), int(numbers[1])
            if upcoming != (epoch, step):
                stream = iter(batches.epoch(epoch, step))
            upcoming = epoch, step + 1
            # While this process waits for a disk, the leader waits for this process.
            batch = next(batch for batch in stream if batch is not None)
            train_step(batch, epoch=epoch, lr=numbers[2], metrics_3=metrics_3)
        elif order is Order.PREPARE:
            train_step.prepare(int(numbers[0]))
        elif order is Order.SHARE:
            train_step.share_state()
        else:
            return


def _warn(message: str) -> None:
    sys.stderr.write(printable(message) + "\n")
