"""Generate what must not drift from the code: docs/configuration.md and the README's table of keys.

python docs/generate.py           # writes both
python docs/generate.py --check   # exits 1 when one of them is out of date
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from trainer.config.field_docs import field_docs, value_words
from trainer.config.schema import RESUME_OVERRIDES, Config
from tui.state.keys import ACTIONS, LIST_ACTIONS, shown_keys
from tui.state.pages import OVERVIEW, PAGES

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- keys: generated from tui/state/keys.py by docs/generate.py -->", "<!-- end of keys -->"


def configuration() -> str:
    """The page of all options."""
    lines = [
        "# The configuration",
        "",
        "Generated from `trainer/config/schema.py`. Files are YAML 1.2: `off`, `no` and `1:30` are strings, `1e-3` is a number.",
        "Every key can be set on the command line: `r18-tui digits train.epochs=20 data.flip=random`.",
        "There text is taken as it is, a list is `a,b` or `[a, b]`, and `none` stands for no value where it is",
        "the default. So it does in files.",
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
    """The README's tables of keys."""
    lines = ["| key | what it does |", "|---|---|"]
    lines += [_key_row(action.keys, action.help) for action in ACTIONS if not action.on_screen]
    lines += [_curves_row(), _pages_row()]
    lines += ["", "In the list of runs:", "", "| key | what it does |", "|---|---|"]
    lines += [_key_row(action.keys, action.help) for action in LIST_ACTIONS]
    return "\n".join(lines)


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


def _key_row(keys: str, text: str) -> str:
    shown = ", ".join(f"`{key}`" for key in shown_keys(keys))
    return f"| {shown} | {text} |"


def readme() -> str:
    """The README with its table renewed."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{keys_table()}\n{END}{after}"


def main() -> int:
    """Write or check."""
    wanted = {ROOT / "docs" / "configuration.md": configuration(), ROOT / "README.md": readme()}
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
