"""The registry of pages, each shown in full by one key: the source of bindings, pane titles, palette, help and the README."""

from __future__ import annotations

from dataclasses import dataclass

from tui.state.keys import Key


@dataclass(frozen=True)
class Page(Key):
    """A pane that takes the whole screen; its name is the pane's id, and its keys, pressed again, show the overview."""

    @property
    def action(self) -> str:
        return f"page('{self.name}')"


OVERVIEW = Page("overview", "0,escape", "overview", "All panes again; there, all steps and the newest values.")

PAGES: tuple[Page, ...] = (
    OVERVIEW,
    Page("loss", "1", "loss", "The loss alone."),
    Page("accuracy", "2", "accuracy", "The accuracy alone."),
    Page("lr", "3", "LR", "The learning rate: past and planned."),
    Page("memory", "4", "memory", "Memory of the device."),
    Page("classes", "5", "classes", "Every class: accuracy, interval, precision, confusions."),
    Page("confusion", "6", "confusion", "Which classes are confused: the matrix, and the worst pairs."),
    Page("mistakes", "7", "mistakes", "The most confident wrong predictions."),
    Page("training", "8", "images", "Training images as the network sees them."),
    Page("network", "9", "network", "The network, stage by stage, and what a residual block does."),
    Page("layers", "w", "weights", "Weights and gradients of every layer, and its dead channels."),
)  # fmt: skip

PAGE_BY_NAME = {page.name: page for page in PAGES}

NEXT_PAGE = "tab next page"  # text in borders where not all pages can be named


def hint(name: str) -> str:
    """Key and label of a page, as shown in borders."""
    page = PAGE_BY_NAME[name]
    return f"{page.key} {page.label}"
