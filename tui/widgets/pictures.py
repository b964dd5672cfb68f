"""Small pictures in rows of tiles with captions: drawn with half cells as pixels, or by the terminal itself."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from rich.cells import cell_len

from trainer.run.log.result_events import PicturesSaved
from tui.drawing import format as fmt
from tui.drawing.canvas import Row
from tui.drawing.pixel_pictures import BLOCKS, KITTY, SIXEL, cell_size, picture_widget
from tui.drawing.themes import no_color, pixel_pair
from tui.state.display_state import DisplayState
from tui.widgets.class_accuracy import waiting_text
from tui.widgets.pane import PaneApp, exact
from tui.widgets.scroll_pane import TablePane

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from trainer.evaluation.picture_sheet import Sheet

_WIDTHS = (32, 24, 20, 16, 12, 8)  # possible tile widths in cells and pixels: a terminal's cell is two pixels high
_ENOUGH = 4  # number of tiles that should be visible at once
_GAP = 2
_CHARACTERS = "characters"
_CAPTION = 3  # lines below a picture
_DARK_TO_LIGHT = " .:-=+*#%@"  # characters used without colours
_LUMINANCE = (0.299, 0.587, 0.114)  # weights of red, green and blue. Source: ITU-R BT.601


class PicturePane(TablePane):
    """Tiles of a sheet of pictures that the run has written; `what` is their kind, as in `PicturesSaved`."""

    what: ClassVar[str]
    title: ClassVar[str]  # `{}` stands for the split
    split: ClassVar[str] = ""  # the selection split if empty

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id, classes=classes)
        self._read: tuple[PicturesSaved | None, Sheet | None, str] = (None, None, "")
        self._tiles: dict[tuple[int, int, str, bool], list[Row]] = {}
        self._overlays_shown: tuple[object, ...] = ()
        self._overlays_wanted: tuple[object, ...] = ()

    def paint(self, scene: DisplayState) -> None:
        """Draw the pane, and over it the pictures that the terminal draws itself."""
        self._overlays_wanted = ()
        super().paint(scene)
        if self._overlays_wanted != self._overlays_shown:
            self._overlays_shown = self._overlays_wanted
            self._show_overlays()

    def empty(self, scene: DisplayState) -> str:
        raise NotImplementedError

    def captions(self, caption: dict[str, Any]) -> tuple[Row, Row]:
        """Two lines below a picture; its file name follows in a third."""
        raise NotImplementedError

    def figures(self, event: PicturesSaved, sheet: Sheet) -> str:
        raise NotImplementedError

    def rows_for(self, scene: DisplayState, width: int, height: int) -> list[Row]:
        split = self.split or scene.view.selection_split
        title, event = self.title.format(split), scene.view.pictures.get((self.what, split))
        if event is not None and not event.images:
            event = None
        sheet, problem = self._sheet(scene, event)
        if event is None or sheet is None:
            return self.notice(scene, title, problem or self.empty(scene), width, height)
        side = _tile_width(len(sheet.captions), width - 4, height - 2)
        columns = max((width - 4 + _GAP) // (side + _GAP), 1)
        count = len(sheet.captions)
        groups = [range(first, min(first + columns, count)) for first in range(0, count, columns)]
        shown, place = self.in_sight(groups, (height - 2) // (side // 2 + _CAPTION))
        method = self._drawing_method(scene)
        if method in (KITTY, SIXEL):
            self._overlays_wanted = event, side, tuple(shown), method, cell_size(), scene.heat
        body = [row for group in shown for row in self._row_of_tiles(sheet, group, side, method, heat=scene.heat)]
        right: Row = [(self.figures(event, sheet), "dim")]
        if any("heat" in caption for caption in sheet.captions):
            right.append(("  h picture" if scene.heat else "  h heat map", "dim"))
        if place:
            right.append((f"  rows {place.strip()}", "dim"))
        return self.frame(scene.glyphs, title, right, body, width, height, bottom=event.path)

    def _sheet(self, scene: DisplayState, event: PicturesSaved | None) -> tuple[Sheet | None, str]:
        """The newest pictures, and an error if they cannot be read."""
        if event is not None and event is not self._read[0]:
            self._tiles.clear()
            self._read = (event, *_read(_path_of(scene, event)))
        return self._read[1], self._read[2]

    def _drawing_method(self, scene: DisplayState) -> str:
        if no_color() or self.app.current_theme.ansi or not scene.glyphs.braille:
            return _CHARACTERS
        protocol = cast(PaneApp, self.app).picture_protocol
        return protocol if cell_size() else BLOCKS

    def _show_overlays(self) -> None:
        """Replace the pictures that the terminal draws by those wanted now."""
        self.remove_children()
        sheet, cell = self._read[1], cell_size()
        if not self._overlays_wanted or sheet is None or cell is None:
            return
        wanted = cast("tuple[object, int, tuple[range, ...], str, object, bool]", self._overlays_wanted)
        _, side, groups, method, _, heat = wanted
        for row, group in enumerate(groups):
            for column, index in enumerate(group):
                overlay = picture_widget(method, _enlarged(sheet, index, side, cell, heat=heat), cell)
                overlay.styles.position = "absolute"
                overlay.styles.offset = 2 + column * (side + _GAP), 1 + row * (side // 2 + _CAPTION)
                overlay.styles.width, overlay.styles.height = side, side // 2
                self.mount(overlay)

    def _row_of_tiles(self, sheet: Sheet, group: range, side: int, method: str, *, heat: bool) -> list[Row]:
        rows: list[Row] = [[] for _ in range(side // 2 + _CAPTION)]
        for index in group:
            key = index, side, method, heat
            if key not in self._tiles:
                caption = sheet.captions[index]
                name = _end_of(fmt.printable(str(caption.get("name", ""))), side)
                lines = [*(exact(line, side) for line in self.captions(caption)), [(name, "dim")]]
                self._tiles[key] = [*_tile(sheet, index, side, method, heat=heat), *lines]
            for row, cells in zip(rows, self._tiles[key], strict=True):
                row += [*cells, (" " * _GAP, "text")]
        return rows


class MistakesPane(PicturePane):
    """Wrong predictions with the highest confidence."""

    page = what = "mistakes"
    title = "Mistakes on {}"

    def empty(self, scene: DisplayState) -> str:
        last = scene.view.last_evaluation
        if last is None or last.accuracy == 1.0:
            return "every image was recognised" if last else waiting_text(scene)
        return "none kept yet; the next evaluation keeps them: e"

    def captions(self, caption: dict[str, Any]) -> tuple[Row, Row]:
        answer = fmt.printable(str(caption.get("predicted", "?")))
        sure: Row = [(f"{100 * float(caption.get('confidence', 0)):.0f} % ", "dim"), (answer, "bad")]
        return [("true ", "dim"), (fmt.printable(str(caption.get("class", "?"))), "text")], sure

    def figures(self, event: PicturesSaved, sheet: Sheet) -> str:
        return f"{len(sheet.captions)} most confident  epoch {round(event.epoch, 2):g}"


class TrainingImagesPane(PicturePane):
    """Augmented images, as the network sees them."""

    page = what = "training"
    title, split = "Training images as the network sees them", "train"

    def empty(self, scene: DisplayState) -> str:
        frozen = scene.view.frozen
        if frozen and frozen.stages:
            return "not while the classifier alone is trained, on features of images that are not augmented"
        return "none kept yet" if scene.view.step else "appears when training starts"

    def captions(self, caption: dict[str, Any]) -> tuple[Row, Row]:
        own, other = fmt.printable(str(caption.get("class", "?"))), caption.get("mixed_with")
        percent = round(100 * float(caption.get("share", 1.0)))
        if other is None or percent == 100:
            return [(own, "text")], []
        return [(f"{percent} % {own}", "text")], [(f"{100 - percent} % {fmt.printable(str(other))}", "dim")]

    def figures(self, event: PicturesSaved, sheet: Sheet) -> str:
        return f"{sheet.facts.get('size', '?')} pixels  epoch {event.epoch:g}"


def _path_of(scene: DisplayState, event: PicturesSaved) -> Path:
    """Path of the pictures in the run directory: a log may come from anywhere, so its path is not trusted."""
    run_dir = scene.run_dir
    if event.what == "training":
        return run_dir.training_images
    return run_dir.mistakes("val" if event.split == "val" else "test")


def _read(path: Path) -> tuple[Sheet | None, str]:
    # Imported here: neither numpy nor Pillow is loaded before there is something to show.
    from trainer.evaluation.picture_sheet import read_sheet

    try:
        return read_sheet(path), ""
    except (OSError, ValueError) as error:
        return None, f"{path.name} cannot be read: {error}"


def _tile_width(pictures: int, width: int, height: int) -> int:
    """The largest tile width with enough tiles visible at once."""
    for side in _WIDTHS:
        if ((width + _GAP) // (side + _GAP)) * (height // (side // 2 + _CAPTION)) >= min(pictures, _ENOUGH):
            break
    return side


def _enlarged(sheet: Sheet, index: int, side: int, cell: tuple[int, int], *, heat: bool) -> Image:
    """A picture scaled to the terminal's pixels."""
    from PIL import Image

    picture = Image.fromarray(_shown(sheet, index, heat=heat, in_colour=True).copy())
    return picture.resize((side * cell[0], side // 2 * cell[1]), Image.Resampling.BICUBIC)


def _shown(sheet: Sheet, index: int, *, heat: bool, in_colour: bool) -> NDArray[np.uint8]:
    """The pixels of a picture, with its activation map over them where `heat` is on and one was kept."""
    from trainer.evaluation.heat import coloured, spotlit
    from trainer.evaluation.picture_sheet import heat_of

    pixels_HWC: NDArray[np.uint8] = sheet.pixels_NHWC[index]
    heat_YX = heat_of(sheet.captions[index]) if heat else None
    if heat_YX is None:
        return pixels_HWC
    shown: NDArray[np.uint8] = (coloured if in_colour else spotlit)(pixels_HWC, heat_YX)
    return shown


def _tile(sheet: Sheet, index: int, side: int, method: str, *, heat: bool) -> list[Row]:
    """The cells of a picture; blank where the terminal draws over them."""
    if method in (KITTY, SIXEL):
        return [[(" " * side, "text")]] * (side // 2)
    import numpy as np

    from trainer.evaluation.picture_sheet import resized

    pixels_HWC = np.asarray(resized(_shown(sheet, index, heat=heat, in_colour=method == BLOCKS), side))
    if method == BLOCKS:
        # Sixteen shades per colour: more cannot be seen at this size, and neighbours become equal.
        shades = (pixels_HWC.astype(int) & 0xF0) | 0x08
        return [_half_blocks(upper, lower) for upper, lower in shades.reshape(-1, 2, side, 3).tolist()]
    light_YX = (pixels_HWC @ np.array(_LUMINANCE)).reshape(side // 2, 2, side).mean(1)
    levels = (light_YX / 256 * len(_DARK_TO_LIGHT)).astype(int)
    return [[("".join(_DARK_TO_LIGHT[level] for level in row), "text")] for row in levels.tolist()]


def _half_blocks(upper: list[list[int]], lower: list[list[int]]) -> Row:
    """Two lines of pixels in one row of cells, with neighbours of the same colours joined."""
    styles = [pixel_pair(tuple(above), tuple(below)) for above, below in zip(upper, lower, strict=True)]
    return [("▀" * len(list(run)), style) for style, run in groupby(styles)]


def _end_of(name: str, width: int) -> str:
    """The end of a name, which distinguishes files."""
    if cell_len(name) <= width:
        return fmt.fit(name, width)
    while cell_len(name) > width - 1:
        name = name[1:]
    return fmt.fit("…" + name, width)
