from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.errors import ConfigError
from trainer.yaml_reader import read_mapping, read_scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("5.0e-4", 0.0005), ("off", "off"), ("no", "no"), ("1:30", "1:30"), ("010", 10), ("0o10", 8),
        ("0x10", 16), ("true", True), ("False", False), ("~", None), ("", ""), (".5", 0.5), ("-3", -3), ("'7'", "7"),
        ("[100, 150]", [100, 150]), ("2026-11-24", "2026-11-24"), (".nan", pytest.approx(float("nan"), nan_ok=True)),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    assert read_scalar(text, source="test") == value


def test_every_key_has_its_line() -> None:
    values, lines = read_mapping("run:\n  name: a\n\ndata: {kind: digits}\n", source="f.yaml")
    assert values == {"run": {"name": "a"}, "data": {"kind": "digits"}}
    assert lines == {"run": 1, "run.name": 2, "data": 4, "data.kind": 4}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run:\n  seed: 1\n  seed: 2\n", "f.yaml:3: run.seed: duplicate key; it stands on line 2 already"),
        ("run: [1, 2\n", "f.yaml:2:1: not valid YAML"),
        ("- 1\n", "expected `group:` sections"),
        ("a: &x {b: 1}\nc: *x\n", "anchors are not supported"),
        ("a: !!python/object/apply:os.system ['true']\n", "f.yaml:1"),
    ],
)
def test_refusals_name_the_place(text: str, message: str) -> None:
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
