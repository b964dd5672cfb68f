"""Equal files: copies are counted, leaks and contradictions reported, and a division keeps copies together."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ConfigMaker, FolderMaker
from tests.support.progress import quiet
from tests.support.running import events_of, resumed_run, start, train, view_of
from trainer.data.folder.decoder import Decoder
from trainer.data.folder.held_out import hold_out
from trainer.data.folder.survey import survey_folder
from trainer.data.image_folder import FolderSplit, PixelStorage, load_image_folder
from trainer.data.prepare import load_held_out
from trainer.errors import DataError
from trainer.run.log.run_events import Started, Warned


def test_copies_leaks_and_contradictions_are_reported(make_folder: FolderMaker) -> None:
    root = make_folder()
    train = root / "train"
    shutil.copy(train / "red" / "000.png", train / "red" / "again.png")
    shutil.copy(train / "red" / "001.png", train / "blue" / "odd.png")
    shutil.copy(train / "green" / "002.png", root / "test" / "green" / "known.png")
    survey = survey_folder(root, quiet)
    assert survey.copies == 1
    assert survey.contradictions == [(train / "red" / "001.png", train / "blue" / "odd.png")]
    assert (root / "test" / "green" / "known.png", train / "green" / "002.png") in survey.leaks
    assert any("test/green/known.png = train/green/002.png" in remark for remark in survey.remarks())
    assert any("is in two classes" in remark for remark in survey.remarks())


def test_a_run_warns_about_held_out_copies_of_training_images(
    make_folder: FolderMaker, make_config: ConfigMaker, tmp_path: Path
) -> None:
    root = make_folder()
    shutil.copy(root / "train" / "green" / "002.png", root / "test" / "green" / "known.png")
    config = make_config("data.kind=imagefolder", f"data.root={root}", "train.epochs=1")
    run = train(config, tmp_path / "runs").run.run_dir
    warnings = [event.message for event in events_of(run, Warned)]
    assert any("in another split too, which inflates the accuracy" in message for message in warnings)


def test_a_flat_folder_is_divided_by_content(
    make_folder: FolderMaker, make_config: ConfigMaker, tmp_path: Path
) -> None:
    """Copies stay in one split, and names do not matter."""
    root = make_folder(splits=("train",)) / "train"
    for index in range(5):
        shutil.copy(root / "red" / f"{index:03d}.png", root / "red" / f"copy-{index}.png")
    (root / "green" / "003.png").write_text("no image")
    settings = (
        "data.kind=imagefolder", f"data.root={root}", "data.val_fraction=0.25", "data.test_fraction=0.25", "train.epochs=1",
    )  # fmt: skip
    run = train(make_config(*settings), tmp_path / "runs").run.run_dir
    (started,) = events_of(run, Started)
    assert started.selection_split == "val"
    assert sum(started.splits.values()) == 40
    assert started.splits["val"] == 3 + 3 + 4
    shares = {"val": 0.25, "test": 0.25}
    data = load_image_folder(
        root,
        decoder=Decoder(image_size=8, crop_pct=1.0),
        keep=lambda _: PixelStorage.STREAM,
        progress=quiet,
        shares=shares,
    )
    split_of: dict[bytes, str] = {}
    for name, split in data.splits.items():
        assert isinstance(split, FolderSplit)
        for path in split.paths:
            assert split_of.setdefault(Path(path).read_bytes(), name) == name
    (root / "red" / "copy-0.png").rename(root / "red" / "zzz.png")
    renamed = load_held_out(make_config(*settings), quiet)
    assert len(renamed.splits["val"]) == started.splits["val"]


@given(
    keys=st.lists(st.integers(0, 30), min_size=4, max_size=60),
    shares=st.fixed_dictionaries({"val": st.sampled_from([0.0, 0.2, 0.4]), "test": st.sampled_from([0.0, 0.3])}),
    classes=st.integers(1, 3),
)
def test_holding_out_keeps_copies_together(keys: list[int], shares: dict[str, float], classes: int) -> None:
    # Some keys have two labels: copies of an image in two classes.
    labels = [(key + (key > 24 and row % 2)) % classes for row, key in enumerate(keys)]
    try:
        rows = hold_out(keys, labels, shares)
    except DataError:
        return
    assert sorted(row for of_split in rows.values() for row in of_split) == list(range(len(keys)))
    places = {(keys[row], name) for name, of_split in rows.items() for row in of_split}  # also across classes
    assert len(places) == len(set(keys))
    assert {labels[row] for row in rows["train"]} == set(labels), "every class keeps training images"
    counts = Counter(labels)
    for name, share in shares.items():
        for label in counts:
            assert sum(labels[row] == label for row in rows.get(name, [])) <= round(counts[label] * share)


def test_a_repaired_file_does_not_move_others_between_splits(
    make_folder: FolderMaker, make_config: ConfigMaker, tmp_path: Path
) -> None:
    root = make_folder(splits=("train",), per_class=16) / "train"
    whole = (root / "red" / "003.png").read_bytes()
    (root / "red" / "003.png").write_bytes(bytes(len(whole)))
    config = make_config("data.kind=imagefolder", f"data.root={root}", "data.val_fraction=0.25", "train.epochs=1")
    run = train(config, tmp_path / "runs").run.run_dir
    (root / "red" / "003.png").write_bytes(whole)
    thread = start(resumed_run(run, tmp_path / "runs", "train.epochs=2"))
    assert thread.join(60)
    failure = view_of(run).failure
    assert failure is not None
    assert "the unreadable files have changed since this run started: 1 file (" in failure.error


@pytest.mark.parametrize(("copies", "more"), [(1, False), (3, False), (4, True)])
def test_at_most_three_leaks_are_named_and_further_ones_are_hinted_at(
    make_folder: FolderMaker, copies: int, more: bool
) -> None:
    root = make_folder()
    for number in range(copies):
        shutil.copy(root / "train" / "red" / f"{number:03}.png", root / "test" / "red" / f"copy{number}.png")
    (remark,) = survey_folder(root, quiet).remarks()
    assert remark.count(" = ") == min(copies, 3)
    assert remark.endswith(", ...") == more
