"""Baselines for `benchmarks.throughput`: the training loop of tutorials, and Lightning with the same data loader.

    python -m benchmarks.baselines tutorial CIFAR10_FOLDER LOG [--batch-size 128] [--workers 2]
    python -m benchmarks.baselines lightning CIFAR10_FOLDER LOG --precision bf16-mixed

Trains without end on `CIFAR10_FOLDER/train/<class>/*.png` and writes the number of images of each step to a line of LOG.
Lightning comes with the extra `benchmark`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18

_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class InMemory(Dataset[tuple[Tensor, int]]):
    """Decoded images in memory, as torchvision's own CIFAR-10 keeps them; Pillow and transforms at each access."""

    def __init__(self, folder: Path) -> None:
        """Decode every image once."""
        files = ImageFolder(str(folder))
        self.pixels = [files[n][0].copy() for n in range(len(files))]
        self.labels = files.targets
        self.transform: Callable[[Image.Image], Tensor] = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(_MEAN, _STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.pixels[index]), self.labels[index]


def network() -> nn.Module:
    """Torchvision's ResNet-18 with a 3x3 stem and the max-pool, as in tutorials for CIFAR-10."""
    model: nn.Module = resnet18(weights=None, num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    return model


def main() -> None:
    """Train until killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loop", choices=("tutorial", "lightning"))
    parser.add_argument("cifar", type=Path)
    parser.add_argument("log", type=Path)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--precision", default="32-true", help="Lightning's")
    arguments = parser.parse_args()
    data = InMemory(arguments.cifar / "train")
    loader = DataLoader(data, arguments.batch_size, shuffle=True, num_workers=arguments.workers, drop_last=True)
    with arguments.log.open("w", buffering=1) as log:
        if arguments.loop == "tutorial":
            _tutorial(loader, log)
        else:
            _lightning(loader, log, arguments.precision, arguments.log.parent)


def _tutorial(loader: DataLoader[tuple[Tensor, int]], log: TextIO) -> None:
    model, criterion = network(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    while True:
        total = correct = seen = 0.0
        for images, labels in loader:
            optimizer.zero_grad()
            outputs = model(images)
            loss = criterion(outputs, labels)
            loss.backward()
            optimizer.step()
            total += loss.item()
            correct += outputs.max(1)[1].eq(labels).sum().item()
            seen += len(labels)
            print(f"\rloss {total / (seen / len(labels)):.3f}  accuracy {correct / seen:.2%}", end="")
            log.write(f"{len(labels)}\n")


def _lightning(loader: DataLoader[tuple[Tensor, int]], log: TextIO, precision: str, folder: Path) -> None:
    import lightning

    class Classifier(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model, self.criterion = network(), nn.CrossEntropyLoss()

        def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
            images, labels = batch
            outputs = self.model(images)
            loss: Tensor = self.criterion(outputs, labels)
            self.log("train_loss", loss, prog_bar=True)
            self.log("train_accuracy", outputs.argmax(1).eq(labels).float().mean(), prog_bar=True)
            return loss

        def on_train_batch_end(self, _outputs: object, batch: tuple[Tensor, Tensor], _index: int) -> None:
            log.write(f"{len(batch[1])}\n")

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)

    trainer = lightning.Trainer(
        accelerator="cpu",
        precision=precision,
        max_epochs=-1,
        default_root_dir=folder,
    )
    trainer.fit(Classifier(), loader)


if __name__ == "__main__":
    main()
