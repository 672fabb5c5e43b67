"""Two runs side by side: what came of them, and the settings in which they differ."""

import textwrap
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.events import Resize
from textual.screen import ModalScreen
from textual.widgets import Static

from core.comparison import Comparison
from tui.clean import clean_line
from tui.run_tables import outcome_rows, value_words
from tui.widgets.run_table import short_reference

_KEY_COLUMNS = 22
_LONGEST_VALUE = 400
_MOST_COLUMNS = 96
_FEWEST_COLUMNS = 30


class ComparePage(ModalScreen[None]):
    """A page of two columns; what is equal is shown only when asked for."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "leave", "Close", tooltip="Close this page."),
        Binding("a", "all", "All", tooltip="Show all settings, or only those that differ."),
        Binding("y", "copy", "Copy", tooltip="Copy this page's text."),
    ]

    def __init__(self, comparison: Comparison) -> None:
        super().__init__()
        self.comparison = comparison
        self.shows_all = False
        self.text = ""

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="page") as box:
            box.border_title = "Two runs"
            yield Static(id="compare-rows")

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()

    def on_resize(self, _event: Resize) -> None:
        self.call_after_refresh(self._show)

    def _show(self) -> None:
        page = self.query_one(VerticalScroll)
        width = max(_FEWEST_COLUMNS, min(_MOST_COLUMNS, page.scrollable_content_region.width))
        self.text = "\n".join(comparison_lines(self.comparison, width, self.shows_all))
        self.query_one("#compare-rows", Static).update(Content(self.text))
        page.border_subtitle = f"a {'only differing' if self.shows_all else 'all'}   y copy   esc close"

    def action_all(self) -> None:
        self.shows_all = not self.shows_all
        self._show()

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(self.text)
        self.app.notify("Copied.")

    def action_leave(self) -> None:
        self.dismiss()


def comparison_lines(comparison: Comparison, width: int, shows_all: bool) -> list[str]:
    """The page's lines. With everything shown, `≠` stands before what differs."""
    left, right = comparison.runs
    lines = _row("", left.short_name, right.short_name, width)
    for pair in outcome_rows(comparison.outcomes):
        is_run = pair.key == "parent"
        first, second = (short_reference(value) if is_run else value for value in (pair.left, pair.right))
        lines += _row(pair.key, first, second, width)
    lines.append("")
    lines += [clean_line(problem, _LONGEST_VALUE) for problem in comparison.problems]
    for pair in comparison.settings:
        if pair.differs or shows_all:
            key = f"≠ {pair.key}" if pair.differs and shows_all else pair.key
            lines += _row(key, value_words(pair.left), value_words(pair.right), width)
    if not comparison.problems and not any(pair.differs for pair in comparison.settings):
        lines.append("Their settings are the same.")
    return lines


def _row(key: str, left: str, right: str, width: int) -> list[str]:
    """A key and two values; what does not fit goes on below."""
    key_width = min(_KEY_COLUMNS, width // 3)
    value_width = (width - key_width - 2) // 2
    columns = [
        textwrap.wrap(clean_line(text, _LONGEST_VALUE), room) or [""]
        for text, room in ((key, key_width), (left, value_width), (right, value_width))
    ]
    height = max(map(len, columns))
    cells = [column + [""] * (height - len(column)) for column in columns]
    return [
        f"{first:<{key_width}} {second:<{value_width}} {third}".rstrip()
        for first, second, third in zip(*cells, strict=True)
    ]
