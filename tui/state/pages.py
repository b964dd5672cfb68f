"""The registry of pages, each shown in full by one key: the source of bindings, pane titles, palette, help and the README."""

from __future__ import annotations

from dataclasses import dataclass

from tui.state.keys import Key


@dataclass(frozen=True, kw_only=True)
class Page(Key):
    """A pane that takes the whole screen; its name is the pane's id, and its keys, pressed again, show the overview."""

    @property
    def action(self) -> str:
        return f"page('{self.name}')"


OVERVIEW = Page(
    name="overview", keys="0,escape", label="overview", help="All panes again; there, all steps and the newest values."
)

PAGES: tuple[Page, ...] = (
    OVERVIEW,
    Page(name="loss", keys="1", label="loss", help="The loss alone."),
    Page(name="accuracy", keys="2", label="accuracy", help="The accuracy alone."),
    Page(name="lr", keys="3", label="LR", help="The learning rate: past and planned."),
    Page(name="memory", keys="4", label="memory", help="Memory of the device."),
    Page(name="classes", keys="5", label="classes", help="Every class: accuracy, interval, precision, confusions."),
    Page(name="confusion", keys="6", label="confusion", help="Which classes are confused: the matrix, and the worst pairs."),
    Page(name="mistakes", keys="7", label="mistakes", help="The most confident wrong predictions."),
    Page(name="training", keys="8", label="images", help="Training images as the network sees them."),
    Page(name="network", keys="9", label="network", help="The network, stage by stage, and what a residual block does."),
    Page(name="layers", keys="w", label="weights", help="Weights and gradients of every layer, and its dead channels."),
)  # fmt: skip

PAGE_BY_NAME = {page.name: page for page in PAGES}

NEXT_PAGE = "tab next page"  # text in borders where not all pages can be named


def hint(name: str) -> str:
    """Key and label of a page, as shown in borders."""
    page = PAGE_BY_NAME[name]
    return f"{page.key} {page.label}"
