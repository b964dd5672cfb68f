"""Surveys of image folders: stored findings, remarks about the data, and held-out splits."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import ConfigMaker, FolderMaker
from tests.support.png import png
from tests.support.progress import quiet
from tests.support.running import events_of, train
from trainer.commands.init import summary
from trainer.commands.training_checks import config_checks
from trainer.data.folder import scan
from trainer.data.folder.decoder import Decoder
from trainer.data.folder.layout import find_layout
from trainer.data.folder.scan import findings_path
from trainer.data.folder.survey import Survey, survey_folder
from trainer.data.image_folder import PixelStorage, load_image_folder
from trainer.data.prepare import load_dataset
from trainer.errors import DataError
from trainer.run.log.run_events import Warned


def count_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Survey, int]:
    """A survey and the number of images that it opened."""
    read_bytes, reads = Path.read_bytes, []

    def counting(path: Path) -> bytes:
        reads.append(path)
        return read_bytes(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", counting)
        survey = survey_folder(root, quiet)
    return survey, sum(path.suffix == ".png" for path in reads)


def test_files_are_opened_once_and_again_after_changes(
    make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder()
    first, opened_first = count_opened(root, monkeypatch)
    again, opened_again = count_opened(root, monkeypatch)
    assert (opened_first, opened_again) == (72, 0)
    assert again.findings == first.findings
    changed = root / "train" / "red" / "004.png"
    changed.write_bytes(changed.read_bytes()[:50])
    survey, number = count_opened(root, monkeypatch)
    assert number == 1
    assert [path for path, _ in survey.unreadable] == [changed]


def test_a_repaired_file_of_the_same_size_and_time_is_opened_again(
    make_folder: FolderMaker,
) -> None:
    """`rsync -t`, `cp -p`, tar and unzip keep the time of writing."""
    root = make_folder()
    path = root / "train" / "red" / "004.png"
    whole, stat = path.read_bytes(), path.stat()
    digests = []
    for content in (bytes(len(whole)), whole):
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        survey = survey_folder(root, quiet)
        pairs = zip(survey.layout.files["train"], survey.findings["train"], strict=True)
        digests.append([finding.digest for file, finding in pairs if file.path == path])
        assert [unreadable for unreadable, _ in survey.unreadable] == ([] if content == whole else [path])
    assert digests[0] != digests[1]


def test_unreadable_classes_are_refused_or_reported(
    make_folder: FolderMaker, make_config: ConfigMaker, tmp_path: Path
) -> None:
    root = make_folder()
    for path in (root / "test" / "red").iterdir():
        path.write_text("no image")
    (note,) = survey_folder(root, quiet).notes
    assert note == "test: no image of red can be read, so these classes are not evaluated"
    config = make_config("data.kind=imagefolder", f"data.root={root}", "train.epochs=1")
    run = train(config, tmp_path / "runs").run.run_dir
    assert any(note in event.message for event in events_of(run, Warned))
    assert any(check.found == note for check in config_checks(config, tmp_path, quiet))
    for path in (root / "train" / "red").iterdir():
        path.write_text("no image")
    refused = (
        r"train/red: 0 images that can be read; a class needs at least one to be learned; .*train/red/000.png: not a"
    )
    with pytest.raises(DataError, match=refused):
        load_dataset(config, torch.device("cpu"), quiet)
    older = make_config("data.kind=imagefolder", f"data.root={root}", "data.reading=1")
    assert len(load_dataset(older, torch.device("cpu"), quiet)[0].splits["train"]) == 24


def test_dark_images_of_many_bits_are_reported(make_folder: FolderMaker) -> None:
    root = make_folder()
    assert survey_folder(root, quiet).notes == []
    values = np.random.default_rng(0).integers(0, 4096, (20, 20)).astype(np.uint16)
    values[0, 0] = 4095
    Image.fromarray(values).save(root / "train" / "red" / "a.png")
    Image.fromarray(values // 2).save(root / "test" / "red" / "b.tif")
    (note,) = survey_folder(root, quiet).notes
    assert note.startswith(
        "2 images with more than 8 bits per value are nearly black: white is the largest value that the file format can hold"
    )
    assert "the brightest pixel is 16 of 255 on that scale" in note
    assert any(
        "with more than 8 bits per value, white is the largest value" in line
        for line in summary(survey_folder(root, quiet))
    )
    Image.fromarray(values * 16).save(root / "train" / "red" / "c.png")
    assert survey_folder(root, quiet).notes == []


def test_a_run_reports_skipped_files(make_folder: FolderMaker, make_config: ConfigMaker, tmp_path: Path) -> None:
    root = make_folder()
    (root / "train" / "red" / "@eaDir").mkdir()
    (root / "train" / "red" / "clip.mov").write_bytes(b"")
    config = make_config("data.kind=imagefolder", f"data.root={root}", "train.epochs=1")
    run = train(config, tmp_path / "runs").run.run_dir
    wanted = [
        "skipped files with other endings: 1 .mov (train/red/clip.mov)",
        "skipped system and NAS folders: 1 (train/red/@eaDir)",
    ]
    warnings = [event.message for event in events_of(run, Warned) if event.message.startswith(f"{root}")]
    assert warnings == [f"{root}: {line}" for line in wanted]
    problems = [check.found for check in config_checks(config, tmp_path, quiet) if check.state == "warning"]
    assert [line for line in problems if line.startswith("skipped")] == wanted
    assert [line for line in summary(survey_folder(root, quiet)) if "note" in line] == [
        f"  note          {line}" for line in wanted
    ]


def test_an_interrupted_survey_continues_where_it_stopped(
    make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder()
    monkeypatch.setattr(scan, "_CHUNK", 8)

    def interrupt(_detail: str, fraction: float | None) -> None:
        if fraction is not None and fraction > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        survey_folder(root, interrupt)
    survey, number = count_opened(root, monkeypatch)
    assert 0 < number < 72
    assert survey.findings == count_opened(root, monkeypatch)[0].findings
    assert not survey.unreadable


def test_a_file_without_permission_is_read_again_later(
    make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions change without the file, so such a finding must not be stored."""
    root = make_folder()
    shut = root / "train" / "red" / "004.png"
    read_bytes = Path.read_bytes

    def refusing(path: Path) -> bytes:
        if path == shut:
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refusing)
        assert survey_folder(root, quiet).unreadable == [(shut, "Permission denied")]
    assert survey_folder(root, quiet).unreadable == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"format": 1, "findings": {"a": 3}}', b'{"format": 99, "findings": {}}']
)
def test_damaged_stored_findings_are_replaced(make_folder: FolderMaker, content: bytes) -> None:
    root = make_folder()
    wanted = survey_folder(root, quiet).findings
    findings_path(root).write_bytes(content)
    assert survey_folder(root, quiet).findings == wanted


def test_stored_findings_are_private_and_optional(
    make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = make_folder()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    survey_folder(root, quiet)
    assert findings_path(root).stat().st_mode & 0o777 == 0o600
    assert findings_path(root).parent.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert len(survey_folder(root, quiet).usable["train"]) == 36


def test_a_truncated_jpeg_with_an_intact_header_is_found(make_folder: FolderMaker) -> None:
    """`Image.verify` does not find it; only decoding does."""
    root = make_folder()
    path = root / "train" / "red" / "big.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-4000])
    ((unreadable, reason),) = survey_folder(root, quiet).unreadable
    assert unreadable == path
    assert "truncated" in reason


def test_sizes_are_those_of_the_upright_image(make_folder: FolderMaker) -> None:
    root = make_folder(per_class=1)
    picture = Image.new("L", (30, 20))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(root / "train" / "blue" / "000.png", exif=exif)
    finding = survey_folder(root, quiet).findings["train"][0]
    assert (finding.width, finding.height, finding.mode) == (20, 30, "L")


def test_a_flat_folder_without_held_out_fractions_is_refused(make_folder: FolderMaker) -> None:
    root = make_folder(splits=("train",)) / "train"
    with pytest.raises(DataError, match=r"no images to evaluate on: .* data.val_fraction and data.test_fraction are 0"):
        load_image_folder(
            root, decoder=Decoder(image_size=8, crop_pct=1.0), keep=lambda _: PixelStorage.STREAM, progress=quiet
        )


def test_a_split_without_readable_images_is_refused(make_folder: FolderMaker) -> None:
    root = make_folder()
    for path in (root / "test").rglob("*.png"):
        path.write_text("no image")
    with pytest.raises(DataError, match=r"test: none of its 36 images can be read; for example .*011.png"):
        load_image_folder(
            root, decoder=Decoder(image_size=8, crop_pct=1.0), keep=lambda _: PixelStorage.STREAM, progress=quiet
        )


def test_class_folders_may_have_any_name(make_folder: FolderMaker) -> None:
    names = ("[red]&bold", "a b", "été", "日本")
    assert find_layout(make_folder(classes=names)).classes == tuple(sorted(names))
    assert len(survey_folder(make_folder("more", classes=names), quiet).usable["test"]) == 48


def test_a_deep_picture_that_is_bright_in_one_channel_is_not_dark(make_folder: FolderMaker) -> None:
    root = make_folder()
    pixels = np.zeros((20, 20, 3), ">u2")
    pixels[..., 0] = 65535
    (root / "train" / "red" / "a.png").write_bytes(png(pixels, 2, 16))
    assert survey_folder(root, quiet).notes == []
