"""Panes of the pages that are not part of the overview."""

from __future__ import annotations

from tui.widgets.class_table import ClassTable
from tui.widgets.confusion import ConfusionPane
from tui.widgets.layers import LayersPane
from tui.widgets.network import NetworkPane
from tui.widgets.pane import Pane
from tui.widgets.pictures import MistakesPane, TrainingImagesPane

PAGE_PANES: dict[str, type[Pane]] = {
    "classes": ClassTable, "confusion": ConfusionPane, "mistakes": MistakesPane, "training": TrainingImagesPane,
    "network": NetworkPane, "layers": LayersPane,
}  # fmt: skip
