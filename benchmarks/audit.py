"""How many planted wrong labels and near copies `r18-tui audit` finds in a folder of images, and how long it takes.

    python -m benchmarks.audit FOLDER --features WHAT [--shares 0.05 0.2] [--seeds 3] [--most 5000]
    python -m benchmarks.audit --compare 100000

FOLDER has train/ and val/ and/or test/; the labels of all of its pictures are taken to be right. WHAT is a run, a file or
`imagenet`. Some labels are changed, to any other class or between the two classes that are confused most; the first N of
the audit's ranking are compared with the N changed ones, beside a random order and a ranking by the loss of the same
classifier when it was fitted to all pictures. Copies are planted by changing 200 pictures in each of several ways.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from trainer.audit import label_doubts
from trainer.audit.backbone import Backbone
from trainer.audit.label_doubts import find_doubts
from trainer.audit.near_copies import connected, find_pairs
from trainer.audit.picture_facts import PictureFacts, hash_thumbnails, measure_files
from trainer.data.folder.layout import find_layout
from trainer.host.progress import no_progress, progress_bar
from trainer.model.start_weights import find_start
from trainer.run.folder.run_dir import default_runs_dir

COPIED = 200


def _cropped(image: Image.Image, left: float, top: float) -> Image.Image:
    width, height = (round(0.95 * length) for length in image.size)
    x, y = round(left * (image.width - width)), round(top * (image.height - height))
    return image.crop((x, y, x + width, y + height))


def _compressed(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "jpeg", quality=30)
    return Image.open(file).convert("RGB")


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "two thirds of the size": lambda image: image.resize((image.width * 2 // 3 or 1, image.height * 2 // 3 or 1)),
    "a quarter of the size": lambda image: image.resize((image.width // 4 or 1, image.height // 4 or 1)),
    "JPEG of quality 30": _compressed,
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "5 % brighter": lambda image: image.point(lambda value: min(value * 1.05, 255)),
    "cropped by 5 %, centre": lambda image: _cropped(image, 0.5, 0.5),
    "cropped by 5 %, corner": lambda image: _cropped(image, 0.0, 0.0),
}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--features")
    parser.add_argument("--compare", type=int, metavar="N", help="only measure the comparison of N random hashes")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05, 0.2])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--most", type=int, default=5000, help="pictures that are examined, drawn at random")
    arguments = parser.parse_args()
    if arguments.compare:
        return _compare(arguments.compare)
    if arguments.folder is None or arguments.features is None:
        parser.error("give a folder and --features")
    layout = find_layout(arguments.folder)
    files = [file for split in layout.files.values() for file in split]
    chosen = np.random.default_rng(0).permutation(len(files))[: arguments.most]
    paths, labels_N = [str(files[i].path) for i in chosen], np.array([files[i].label for i in chosen])
    with progress_bar() as progress:
        backbone = Backbone.load(
            find_start(arguments.features, default_runs_dir()), default_runs_dir(), "auto", progress
        )
        began = time.perf_counter()
        features_NF, kept = backbone.features(paths, progress)
        print(f"{len(paths):,} pictures; features of {backbone.origin}: {time.perf_counter() - began:.1f} s")
        assert len(kept) == len(paths)
        groups = _copies(paths, progress)
    _labels(features_NF, labels_N, groups, layout.classes, arguments.shares, arguments.seeds)
    return 0


def _compare(number: int) -> int:
    """Print the time to compare so many pictures, of which one in a hundred is a copy of another."""
    drawn = np.random.default_rng(0)
    thumbnails_NYX = drawn.integers(0, 256, (number, 6, 6), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    copies = number // 100
    thumbnails_NYX[:copies] = thumbnails_NYX[copies : 2 * copies]
    ones = np.ones(number)
    facts = PictureFacts(
        thumbnails_NYX,
        hash_thumbnails(thumbnails_NYX),
        ones.astype(int),
        ones.astype(int),
        ones,
        50 * ones,
        ones,
        np.zeros((number, 2)),
    )
    began = time.perf_counter()
    pairs = find_pairs(facts, no_progress)
    print(
        f"{number:,} pictures compared in {time.perf_counter() - began:.1f} s: {len(pairs):,} pairs, {copies:,} planted"
    )
    return 0


def _labels(
    features_NF: Tensor, labels_N: NDArray[np.int64], groups: list[list[int]], classes: tuple[str, ...],
    shares: list[float], seeds: int,
) -> None:  # fmt: skip
    began = time.perf_counter()
    clean = find_doubts(features_NF, labels_N, groups, no_progress)
    predicted_N = clean.probabilities_NK.argmax(1)
    confused = Counter(
        tuple(sorted(pair)) for pair in zip(labels_N.tolist(), predicted_N.tolist(), strict=True) if pair[0] != pair[1]
    )
    (similar, _), *_ = confused.most_common(1)
    print(
        f"labels as they are: {clean.doubtful_N.sum():,} doubtful, about {clean.estimated_wrong:.0f} estimated to be wrong; "
        f"accuracy out of fold {(predicted_N == labels_N).mean():.1%}; {time.perf_counter() - began:.1f} s"
    )
    print(
        "labels changed                    number   found among as many: audit, by loss, at random   among three times as many"
    )
    for share in shares:
        for kind in ("to any class", f"{classes[similar[0]]} and {classes[similar[1]]}"):
            found = []
            for seed in range(seeds):
                pair = None if kind == "to any class" else (int(similar[0]), int(similar[1]))
                changed_N, wrong_N = _changed(labels_N, len(classes), share, seed, pair)
                doubts = find_doubts(features_NF, changed_N, groups, no_progress)
                number = int(wrong_N.sum())
                by_loss = np.argsort(_fitted_confidence(features_NF, changed_N), kind="stable")
                found.append([
                    number, wrong_N[doubts.ranking[:number]].sum() / number, wrong_N[by_loss[:number]].sum() / number,
                    wrong_N.mean(), wrong_N[doubts.ranking[: 3 * number]].sum() / number, doubts.estimated_wrong,
                ])  # fmt: skip
            number, audit, loss, chance, wide, estimated = np.array(found, float).mean(0)
            print(f"{share:4.0%} {kind:<28.28} {number:6.0f}   {audit:27.1%} {loss:8.1%} {chance:10.1%} {wide:27.1%}"
                  f"   (estimated: {estimated:.0f})", flush=True)  # fmt: skip


def _changed(
    labels_N: NDArray[np.int64], num_classes: int, share: float, seed: int, pair: tuple[int, int] | None
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Labels of which a share is changed, of all or of two classes, and which."""
    drawn = np.random.default_rng(seed)
    eligible = np.flatnonzero(np.isin(labels_N, pair)) if pair else np.arange(len(labels_N))
    rows = drawn.choice(eligible, round(share * len(eligible)), replace=False)
    changed_N = labels_N.copy()
    if pair:
        changed_N[rows] = sum(pair) - labels_N[rows]
    else:
        changed_N[rows] = (labels_N[rows] + drawn.integers(1, num_classes, len(rows))) % num_classes
    return changed_N, changed_N != labels_N


def _fitted_confidence(features_NF: Tensor, labels_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """Probability of each label from the classifier that was fitted to all of them."""
    everything = np.zeros(len(labels_N), np.int64)
    features_NF = label_doubts.standardised(features_NF)
    labels = torch.from_numpy(labels_N)
    weights = label_doubts.fit(features_NF, labels, int(labels_N.max()) + 1, 1e-2)
    probabilities = label_doubts.logits_of(features_NF, weights).softmax(1).double().numpy()
    return probabilities[np.arange(len(everything)), labels_N]


def _copies(paths: list[str], progress: Callable[[str, float | None], None]) -> list[list[int]]:
    """Print the share of planted copies that is found; returns the sets of copies among the pictures as they are."""
    drawn = np.random.default_rng(1).choice(len(paths), min(COPIED, len(paths)), replace=False)
    with tempfile.TemporaryDirectory() as folder:
        planted, kinds = list(paths), {}
        for kind, change in CHANGES.items():
            for row in drawn.tolist():
                kinds[len(planted)] = (row, kind)
                planted.append(f"{folder}/{len(planted)}.png")
                change(Image.open(paths[row]).convert("RGB")).save(planted[-1])
        began = time.perf_counter()
        facts, kept, _ = measure_files(planted, progress)
        assert len(kept) == len(planted)
        measured = time.perf_counter()
        pairs = {pair[:2] for pair in find_pairs(facts, progress)}
        print(f"{len(planted):,} pictures with copies: measured in {measured - began:.1f} s, "
              f"compared in {time.perf_counter() - measured:.1f} s")  # fmt: skip
        found = Counter(kind for number, (row, kind) in kinds.items() if (row, number) in pairs)
        for kind in CHANGES:
            print(f"  {kind:<24} {found[kind] / len(drawn):6.1%} of {len(drawn)} found")
        own = find_pairs(facts.of(np.arange(len(paths))), progress)
    print(f"  pairs among the pictures as they are: {len(own)}")
    for pair in own[:20]:
        print(
            f"    {pair.correlation:.4f}{' mirrored' if pair.is_mirrored else ''} {paths[pair.first]} {paths[pair.second]}"
        )
    return connected(own)


if __name__ == "__main__":
    sys.exit(main())
