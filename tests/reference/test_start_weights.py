"""`trainer.model.initial_weights`: the head of another model is loaded only for the same classes in the same order."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from tests.reference.evaluation_networks import TinyResNet
from trainer.model.initial_weights import InitialWeights
from trainer.model.weight_loading import load_initial_weights

HEAD = ["fc.weight", "fc.bias"]


@pytest.mark.parametrize(
    ("classes", "source", "kept"),
    [
        ("abc", "abc", True), ("abc", "acb", False), ("abc", "cab", False), ("abc", "abd", False), ("abc", "ABC", False),
        ("abc", None, False), (["a", "b", "c"], ("a", "b", "c"), True), ("abc", "abcd", False), ("abc", "ab", False),
    ],
)  # fmt: skip
def test_the_head_is_loaded_only_for_the_same_classes_in_the_same_order(
    classes: Sequence[str], source: Sequence[str] | None, kept: bool
) -> None:
    model = TinyResNet(3, seed=0)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.fill_(1)
    state = {name: torch.full_like(value, 2) for name, value in model.state_dict().items()}
    if source is not None:
        for name in HEAD:
            state[name] = torch.full((len(source), *state[name].shape[1:]), 2.0)
    report = load_initial_weights(
        model, InitialWeights(state, "a run", None, None if source is None else tuple(source)), list(classes)
    )
    expected = ([], []) if kept else ([], HEAD) if source is None else (HEAD, [])
    assert (report.other_classes, report.unknown_classes) == expected
    assert set(report.loaded) == set(state) - (set() if kept else set(HEAD))
    for name, value in model.state_dict().items():
        assert torch.equal(value, torch.full_like(value, 1 if name in HEAD and not kept else 2)), name
