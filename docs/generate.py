"""Generate what must not drift from the code: docs/configuration.md, and the tables of keys in README.md and docs/dashboard.md.

python docs/generate.py           # writes all three
python docs/generate.py --check   # exits 1 when one of them is out of date
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from trainer.config.field_docs import field_docs, value_words
from trainer.config.schema import RESUME_OVERRIDES, Config
from tui.state.keys import ACTIONS, LIST_ACTIONS, Key
from tui.state.pages import OVERVIEW, PAGES

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- keys: generated from tui/state/keys.py by docs/generate.py -->", "<!-- end of keys -->"

_KEYS_HEAD = ("| key | what it does |", "|---|---|")


def configuration() -> str:
    """The page of all options."""
    lines = [
        "# The configuration",
        "",
        "Generated from `trainer/config/schema.py` and `data_config.py`.",
        "Files are YAML 1.2: `off`, `no` and `1:30` are strings, `1e-3` is a number.",
        "Every key can be set on the command line: `r18-tui digits train.epochs=20 data.flip=random`. There, text is taken",
        "literally, and a list is `a,b` or `[a, b]`. Settings that may be empty take `none`, also in files.",
        f"A resume may change {', '.join(f'`{key}`' for key in RESUME_OVERRIDES)} (a dot at the end means the whole group).",
    ]
    for name, field in Config.model_fields.items():
        group = field.annotation
        assert isinstance(group, type)
        assert issubclass(group, BaseModel)
        lines += [
            "",
            f"## {name}",
            "",
            (group.__doc__ or "").strip(),
            "",
            "| key | default | values | meaning |",
            "|---|---|---|---|",
        ]
        lines += [_row(key, group) for key in group.model_fields]
    return "\n".join(lines) + "\n"


def keys_table() -> str:
    """All keys, of the dashboard and of the list of runs."""
    lines = [*_KEYS_HEAD]
    lines += [_key_row(action) for action in ACTIONS if not action.on_screen]
    lines += [_curves_row(), _pages_row()]
    lines += ["", "In the list of runs:", "", *_KEYS_HEAD]
    lines += [_key_row(action) for action in LIST_ACTIONS]
    return "\n".join(lines)


def short_keys_table() -> str:
    """The keys that the key bar places first, those of all curves, and the pages."""
    lines = [*_KEYS_HEAD, *(_key_row(action) for action in ACTIONS if action.bar == 1)]
    return "\n".join([*lines, _curves_row(), _pages_row()])


def _curves_row() -> str:
    """What is done to all curves, in one line."""
    acting = [action for action in ACTIONS if action.on_screen]
    named = ", ".join(f"`{action.key}` {action.label}" for action in acting)
    return f"| {', '.join(f'`{action.key}`' for action in acting)} | All curves: {named}. |"


def _pages_row() -> str:
    """All pages in one line."""
    named = ", ".join(f"`{page.key}` {page.label}" for page in PAGES[1:])
    text = f"One pane alone, in full: {named}; again, `{OVERVIEW.key}` or `esc` shows all."
    return f"| {' '.join(f'`{page.key}`' for page in PAGES[1:])} | {text} |"


def _key_row(key: Key) -> str:
    shown = ", ".join(f"`{name}`" for name in key.shown_keys)
    return f"| {shown} | {key.help} |"


def _with_table(page: Path, table: str) -> str:
    """A page with the table between its two marks renewed."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, page
    assert end, page
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main() -> int:
    """Write or check."""
    readme, dashboard = ROOT / "README.md", ROOT / "docs" / "dashboard.md"
    wanted = {
        ROOT / "docs" / "configuration.md": configuration(),
        readme: _with_table(readme, short_keys_table()),
        dashboard: _with_table(dashboard, keys_table()),
    }
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is out of date: python docs/generate.py")
        return 1 if stale else 0
    for path in stale:
        path.write_text(wanted[path], encoding="utf-8")
    return 0


def _row(key: str, group: type[BaseModel]) -> str:
    field = group.model_fields[key]
    default = [] if field.default is PydanticUndefined else field.default
    shown = str(default).lower() if default is None or isinstance(default, bool) else default
    values = ", ".join(value_words(field.annotation))
    return f"| `{key}` | `{shown}` | {values} | {field_docs(group)[key]} |"


if __name__ == "__main__":
    sys.exit(main())
