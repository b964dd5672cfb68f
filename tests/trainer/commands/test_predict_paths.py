"""Which files `predict` classifies: names in lists of any encoding, pipes and devices."""

from __future__ import annotations

import codecs
import io
import os
import sys
from pathlib import Path

import pytest

from tests.conftest import needs_exporter
from trainer.commands.predict import (
    find_images,
)
from trainer.errors import DataError

pytestmark = [needs_exporter, pytest.mark.usefixtures("narrow_module")]


@pytest.mark.parametrize("end", ["\n", "\0", "\r\n"])
@pytest.mark.parametrize(
    "name", ["a\u2028b", "a\x1cb", "a\x85b", "a\x0bb", "a\rb", "\x1c", "a\r", "~a", "a*", "\udce9"]
)
def test_names_in_a_list_end_only_at_newlines_or_nul(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, end: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (name, "other"):
        Path(path).touch()
    lines = os.fsencode(f"{name}{end}{end}other{end}")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert find_images(["-"]) == (sorted([name, "other"]), [])


def listed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> tuple[list[str], list[str]]:
    """The images that `predict MODEL -` finds in a list."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    return find_images(["-"])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_list_from_powershell_is_read_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, end: str
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["caf\u00e9.png", "z.png"]
    for name in names:
        Path(name).touch()
    content = "".join(name + end for name in names).encode(encoding)
    if encoding.endswith("e"):
        with pytest.raises(DataError, match="the list is in UTF-16 without a byte order mark; write it in UTF-8"):
            listed(monkeypatch, content)
        content = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}[encoding] + content
    assert listed(monkeypatch, content) == (names, [])


def test_empty_and_damaged_lists_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").touch()
    Path("b").touch()
    assert listed(monkeypatch, b"a\0b\0") == (["a", "b"], []), "names of one letter, not UTF-16"
    for empty in (b"", b"\n\n", b"\0", codecs.BOM_UTF8, codecs.BOM_UTF16_LE):
        assert listed(monkeypatch, empty) == ([], ["standard input: contains no names"])
    with pytest.raises(DataError, match="a damaged list in UTF-16: truncated data; write it in UTF-8"):
        listed(monkeypatch, codecs.BOM_UTF16_LE + b"a")


def test_named_pipes_and_devices_are_refused_but_pipes_of_the_shell_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f.png")
    reading, writing = os.pipe()
    own = f"/dev/fd/{reading}"
    odd = [str(tmp_path / "f.png"), "/dev/zero"]
    try:
        assert find_images([own, *odd]) == ([own], [f"{path}: a named pipe or a device, not a file" for path in odd])
    finally:
        os.close(reading)
        os.close(writing)
