"""Reading and writing YAML: version 1.2 scalars, line numbers, refusals."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from trainer.config.yaml_reader import read_list, read_mapping, read_scalar, write_scalar, write_yaml
from trainer.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("5.0e-4", 0.0005), ("off", "off"), ("no", "no"), ("1:30", "1:30"), ("010", 10), ("0o10", 8),
        ("0x10", 16), ("true", True), ("False", False), ("~", None), ("''", ""), (".5", 0.5), ("-3", -3), ("'7'", "7"),
        ("[100, 150]", [100, 150]), ("2026-11-24", "2026-11-24"), (".nan", pytest.approx(float("nan"), nan_ok=True)),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    assert read_mapping(f"value: {text}", source="test")[0]["value"] == value


@pytest.mark.parametrize("text", ["3 # three", "'7'", "[1]", "a: b", "!!int 3", "&x 3", "1_000", "9" * 5000, ""])
def test_text_that_is_not_a_plain_scalar_stays_text(text: str) -> None:
    assert read_scalar(text) == text


@pytest.mark.parametrize("text", ["1]", "[1", "[1] # one", "*x", "[!!python/name:os.system]"])
def test_text_that_is_not_a_list_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected a list such as|tags are not supported"):
        read_list(text, source="test")


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
    | st.sampled_from(["1e5", "08", "0o7", "null", "\U000e0067"])
)
def test_any_text_is_read_back_from_written_yaml(text: str) -> None:
    """By this program's reader and by PyYAML's, which follows YAML 1.1."""
    document = f"run:\n  name: {write_scalar(text)}\n  seed: 1\n"
    for written in (document, write_yaml({"run": {"name": text, "seed": 1}})):
        assert read_mapping(written, source="f.yaml")[0] == {"run": {"name": text, "seed": 1}}
        assert yaml.safe_load(written) == {"run": {"name": text, "seed": 1}}


def test_every_key_has_its_line() -> None:
    values, lines = read_mapping("run:\n  name: a\n\ndata: {kind: digits}\n", source="f.yaml")
    assert values == {"run": {"name": "a"}, "data": {"kind": "digits"}}
    assert lines == {"run": 1, "run.name": 2, "data": 4, "data.kind": 4}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run:\n  seed: 1\n  seed: 2\n", "f.yaml:3: run.seed: duplicate key; it is already on line 2"),
        ("run: [1, 2\n", "f.yaml:2:1: not valid YAML"),
        ("- 1\n", "expected `group:` sections"),
        ("a: &x {b: 1}\nc: *x\n", "anchors are not supported"),
        ("a: !!python/object/apply:os.system ['true']\n", "f.yaml:1"),
    ],
)
def test_refusals_name_the_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_mapping(text, source="f.yaml")
    assert message in str(caught.value)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        values, _ = read_mapping(text, source="f.yaml")
    except ConfigError as error:
        values = {}
        message = str(error)
    else:
        message = "f.yaml"
    assert message.startswith("f.yaml")
    assert isinstance(values, dict)
