"""Image folders: layouts, unreadable files, and decoding."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from tests.conftest import ConfigMaker, FolderMaker
from tests.support.progress import quiet
from trainer.data.dataset import DataSet, ResidentSplit, channel_statistics
from trainer.data.folder.decoder import Decoder
from trainer.data.folder.pixels import UnreadableImageError
from trainer.data.image_folder import FolderSplit, PixelStorage, load_image_folder
from trainer.data.prepare import load_dataset, load_held_out, prepare_data
from trainer.errors import DataError

CPU = torch.device("cpu")


def load(root: Path, keep: PixelStorage = PixelStorage.RESIDENT, size: int = 8) -> DataSet:
    return load_image_folder(root, decoder=Decoder(image_size=size, crop_pct=1.0), keep=lambda _: keep, progress=quiet)


def test_every_split_has_the_classes_of_train(make_folder: FolderMaker) -> None:
    root = make_folder()
    for image in (root / "test" / "blue").iterdir():
        image.unlink()
    (root / "test" / "blue").rmdir()
    data = load(root)
    assert data.classes == ("blue", "green", "red")
    assert data.splits["test"].labels_N.unique().tolist() == [1, 2], "a class that is missing in test keeps its number"


def test_a_class_missing_in_train_is_refused(make_folder: FolderMaker) -> None:
    root = make_folder()
    (root / "test" / "pink").mkdir()
    with pytest.raises(DataError, match="class folder 'pink' is not in train/"):
        load(root)


def test_a_decompression_bomb_is_named_and_skipped(make_folder: FolderMaker) -> None:
    """A file of 100 bytes that would decode to 10 GB."""
    root = make_folder()
    bad = root / "train" / "blue" / "000.png"
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b""))
    bad.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    )
    ((path, reason),) = load(root).skipped
    assert path == str(bad)
    assert "exceeds limit" in reason


def test_an_image_of_extreme_proportions_is_decoded_with_little_memory(tmp_path: Path) -> None:
    """Resized as a whole before the crop, this file of a kilobyte would take 60 GB."""
    path = tmp_path / "long.png"
    Image.new("RGB", (1, 400_000), (10, 200, 30)).save(path)
    pixels = Decoder(image_size=224, crop_pct=1.0)(path)
    assert pixels.shape == (224, 224, 3)
    assert (pixels == (10, 200, 30)).all()


@pytest.mark.parametrize("size", [(10, 10), (333, 517), (640, 480), (20, 300)])
@pytest.mark.parametrize(("side", "crop_pct"), [(8, 1.0), (224, 0.875), (32, 0.9)])
def test_a_crop_equals_that_of_the_whole_resized_image(size: tuple[int, int], side: int, crop_pct: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image, decoder = Image.fromarray(noise), Decoder(image_size=side, crop_pct=crop_pct)
    scale = decoder.resize / min(image.size)
    whole = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (whole.width - side) // 2, (whole.height - side) // 2
    wanted = np.array(whole.crop((left, top, left + side, top + side)), dtype=np.int64)
    assert np.abs(decoder.convert(image) - wanted).max() <= 2, "rounding of weights"


def test_a_class_name_that_is_not_utf_8_is_refused(make_folder: FolderMaker) -> None:
    root = make_folder()
    for split in ("train", "test"):
        os.rename(root / split / "red", os.fsencode(root / split) + b"/caf\xe9")
    with pytest.raises(DataError, match=r"the class folder 'caf\\udce9' has a name that is not UTF-8; rename it"):
        load(root)


def test_an_unreadable_image_is_named_and_skipped(make_folder: FolderMaker) -> None:
    root = make_folder()
    bad = root / "train" / "green" / "000.png"
    bad.write_bytes(bad.read_bytes()[:60])
    (root / "train" / "red" / "001.png").write_text("no image")
    for keep in (PixelStorage.RESIDENT, PixelStorage.STREAM):
        data = load(root, keep)
        assert [path for path, _ in data.skipped] == [str(bad), str(root / "train" / "red" / "001.png")]
        assert len(data.splits["train"]) == 34
        assert torch.bincount(data.splits["train"].labels_N).tolist() == [12, 11, 11]


def empty_all_classes(root: Path) -> None:
    for image in root.rglob("*.png"):
        image.unlink()


def leave_one_class(root: Path) -> None:
    for split in ("train", "test"):
        for name in ("blue", "green"):
            for image in (root / split / name).iterdir():
                image.unlink()
            (root / split / name).rmdir()


def rename_train(root: Path) -> None:
    (root / "train").rename(root / "pictures")


@pytest.mark.parametrize(
    ("spoil", "messages"),
    [
        (empty_all_classes, ["train/blue: holds no images"]),
        (leave_one_class, ["found 1 class folder;", "expected:"]),
        (
            rename_train,
            ["train/ is missing", "      blue/ (12 images)", "expected:\n  images/\n    train/<class>/*.jpg"],
        ),
    ],
)
def test_a_wrong_layout_is_shown_with_the_expected_one(
    make_folder: FolderMaker, spoil: Callable[[Path], None], messages: list[str]
) -> None:
    root = make_folder()
    spoil(root)
    with pytest.raises(DataError) as caught:
        load(root)
    assert all(message in str(caught.value) for message in messages), str(caught.value)
    assert caught.value.exit_code == 2


def test_a_missing_root_is_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder; data\.root must be the folder of the images"):
        load(tmp_path / "nowhere")


def test_fewer_images_than_a_batch_are_refused(make_folder: FolderMaker, make_config: ConfigMaker) -> None:
    config = make_config("data.kind=imagefolder", f"data.root={make_folder()}", "data.batch_size=64")
    with pytest.raises(
        DataError, match=r"36 training images are fewer than data\.batch_size 64; set data\.batch_size to 9"
    ):
        prepare_data(config, CPU, quiet)


def test_images_are_rotated_flattened_and_cropped(tmp_path: Path) -> None:
    decode = Decoder(image_size=8, crop_pct=0.5)
    picture = Image.new("RGB", (40, 20), "red")
    picture.paste("blue", (0, 0, 20, 20))
    exif = picture.getexif()
    exif[0x0112] = 6  # rotate by 90 degrees: the left half becomes the upper one
    picture.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    turned = decode(tmp_path / "turned.jpg")
    assert turned.shape == (8, 8, 3)
    assert turned[0, 4, 2] > 200
    assert turned[7, 4, 0] > 200
    Image.new("RGBA", (16, 16), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (decode(tmp_path / "clear.png") == 255).all(), "transparent pixels are white"
    Image.new("L", (16, 16), 77).save(tmp_path / "grey.png")
    assert (decode(tmp_path / "grey.png") == 77).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_with_odd_tags_is_rotated_as_by_pillow(tmp_path: Path, orientation: int) -> None:
    """Pillow's own transposition rewrites the tags, and fails where a resolution is text."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    exif = picture.getexif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "plain.png", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(tmp_path / "plain.png"))
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0) + struct.pack("<HHI4s", 0x011A, 2, 3, b"72")
    picture.save(tmp_path / "odd.png", exif=b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4))
    if orientation > 1:
        with pytest.raises(TypeError):
            ImageOps.exif_transpose(Image.open(tmp_path / "odd.png"))
    assert (Decoder(image_size=8, crop_pct=1.0)(tmp_path / "odd.png") == np.asarray(expected)).all()


def test_an_unexpected_decoder_error_names_the_file(make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder()
    Image.new("RGB", (31, 17)).save(root / "train" / "red" / "001.png")
    convert = Decoder.convert

    def failing(self: Decoder, image: Image.Image) -> object:
        if image.size == (31, 17):
            raise TypeError("bad operand type for abs(): 'str'")
        return convert(self, image)

    monkeypatch.setattr(Decoder, "convert", failing)
    assert load(root).skipped == ((str(root / "train" / "red" / "001.png"), "bad operand type for abs(): 'str'"),)


def test_sixteen_bit_grey_keeps_its_greys(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "deep.png")
    decoded = Decoder(image_size=8, crop_pct=1.0)(tmp_path / "deep.png")
    assert (decoded[..., 0] == np.rint(values / 257)).all()
    older = Decoder(image_size=8, crop_pct=1.0, reading=1)(tmp_path / "deep.png")
    assert (older[..., 0] == values // 257).all()
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(UnreadableImageError, match="no known scale"):
        Decoder(image_size=8, crop_pct=1.0)(tmp_path / "float.tiff")


def test_an_image_of_the_right_size_is_unchanged(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "exact.png")
    assert (Decoder(image_size=8, crop_pct=1.0)(tmp_path / "exact.png") == pixels).all()


def test_the_fingerprint_depends_on_names_and_sizes(make_folder: FolderMaker) -> None:
    root = make_folder()
    before = load(root).fingerprint
    assert load(root, PixelStorage.STREAM).fingerprint == before
    image = root / "train" / "red" / "003.png"
    image.write_bytes(image.read_bytes() + b"\0")
    assert load(root).fingerprint != before


def test_mean_and_std_are_those_of_all_pixels(make_folder: FolderMaker) -> None:
    split = load(make_folder()).splits["train"]
    pixels = split.pixels(range(len(split))).double().reshape(-1, 3) / 255
    mean, std = channel_statistics(split, quiet)
    assert mean == pytest.approx(pixels.mean(0).tolist(), abs=1e-6)
    assert std == pytest.approx(pixels.std(0, correction=0).tolist(), abs=1e-6)


def test_an_export_decodes_only_the_held_out_images(make_folder: FolderMaker, make_config: ConfigMaker) -> None:
    root = make_folder()
    (root / "train" / "red" / "001.png").write_text("no image")
    data = load_held_out(make_config("data.kind=imagefolder", f"data.root={root}", "data.crop_pct=1.0"), quiet)
    assert isinstance(data.splits["train"], FolderSplit)
    assert isinstance(data.splits["test"], ResidentSplit)
    with pytest.raises(DataError, match="no longer is"):
        data.splits["train"].pixels(range(36))


@pytest.mark.parametrize("cache", ["ram", "none"])
def test_random_crops_are_taken_from_the_whole_image(
    make_folder: FolderMaker, make_config: ConfigMaker, cache: str
) -> None:
    """Not out of its centre crop, which evaluations see."""
    root = make_folder(size=(40, 60))
    settings = ("data.kind=imagefolder", f"data.root={root}", "data.crop_pct=0.5", f"data.cache={cache}")

    def sides(*overrides: str) -> list[int]:
        data, _ = load_dataset(make_config(*settings, *overrides), torch.device("cpu"), lambda *_: None)
        return [data.splits[name].pixels([0]).shape[1] for name in ("train", "test")]

    assert sides() == [8, 8]
    assert sides("data.resized_crop=0.4") == [16, 8]
    assert sides("data.resized_crop=0.4", "data.fit=letterbox") == [8, 8], "a letterboxed image is whole already"
