"""The top line: the app's name, the tabs with their keys, and whether something is training."""

from collections.abc import Sequence
from dataclasses import dataclass

from textual.content import Content
from textual.events import Click
from textual.message import Message
from textual.widget import Widget


@dataclass(frozen=True, slots=True)
class Tab:
    """One tab's place in the header. `labels`: long, short, shortest."""

    name: str
    key: str
    labels: tuple[str, str, str]
    starts_group: bool = False


class HeaderBar(Widget):
    """Tabs in the longest words that fit; the visible one stands out."""

    LONG_FROM_COLUMNS = 100

    class Chosen(Message):
        """A tab was clicked."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    def __init__(self, tabs: Sequence[Tab], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.tabs = tabs
        self.active = tabs[0].name
        self.status = ""
        self._places: list[tuple[int, int, str]] = []

    def show(
        self, *, active: str | None = None, status: str | None = None, tabs: Sequence[Tab] | None = None
    ) -> None:
        """Change what is given, keep the rest."""
        before = (self.active, self.status, self.tabs)
        self.active = self.active if active is None else active
        self.status = self.status if status is None else status
        self.tabs = self.tabs if tabs is None else tabs
        if (self.active, self.status, self.tabs) != before:
            self.refresh()

    def render(self) -> Content:
        width = self.size.width
        title = " bbtui " if width >= 70 else ""
        lengths = [0, 1, 2, 3] if width >= self.LONG_FROM_COLUMNS else [1, 2, 3]
        lines = [self._line(title, length) for length in lengths]
        fitting = (line for line in lines if len(line[0]) + len(self.status) + 1 <= width)
        content, self._places = next(fitting, lines[-1])
        gap = width - len(content) - len(self.status) - 1
        return Content.assemble(content, " " * max(0, gap), (self.status, "bold"))

    def _line(self, title: str, length: int) -> tuple[Content, list[tuple[int, int, str]]]:
        line, places = Content(title).stylize("bold"), []
        for tab in self.tabs:
            if tab.starts_group:
                line = line.append(Content("│").stylize("dim"))
            # Where space is short, the visible tab alone keeps its whole word, as long as that fits.
            word = tab.labels[1 if length == 2 and tab.name == self.active else min(length, 2)]
            label = f" {tab.key} {word} " if length < 2 else f"{tab.key} {word} "
            places.append((len(line), len(line) + len(label), tab.name))
            line = line.append(Content(label).stylize("bold reverse" if tab.name == self.active else ""))
        return line, places

    def on_click(self, event: Click) -> None:
        for start, end, name in self._places:
            if start <= event.x < end:
                self.post_message(self.Chosen(name))
