"""The bottom line: at most six keys, by context."""

from textual.content import Content
from textual.events import Click
from textual.keys import format_key
from textual.message import Message
from textual.widget import Widget

Hint = tuple[str, str]
"""A key by Textual's name, and a word or two."""

_MOST_HINTS = 6
_SHORT = {"escape": "esc", "question_mark": "?", "enter": "⏎"}


def key_text(key: str) -> str:
    """A key as the footer and the help write it: `^p`, `?`, `⏎`."""
    modifier, _, name = key.rpartition("+")
    text = _SHORT.get(name) or format_key(name)
    return f"^{text}" if modifier == "ctrl" else f"{modifier}+{text}" if modifier else text


class HintBar(Widget):
    """Keys that help now; the last one is always the help page."""

    class Chosen(Message):
        """A hint was clicked."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.hints: list[Hint] = []
        self._places: list[tuple[int, int, str]] = []

    def show(self, hints: list[Hint]) -> None:
        """Show these hints before the one for help."""
        hints = [*hints[: _MOST_HINTS - 1], ("question_mark", "help")]
        if hints != self.hints:
            self.hints = hints
            self.refresh()

    def render(self) -> Content:
        self._places = []
        line = Content(" ")
        for at, (key, words) in enumerate(self.hints):
            name = key_text(key)
            is_last = at == len(self.hints) - 1
            after = 0 if is_last else len("?") + len(" help")
            if not is_last and len(line) + len(name) + len(words) + 4 + after > self.size.width:
                continue
            self._places.append((len(line), len(line) + len(name) + 1 + len(words), key))
            line = line.append(Content.assemble((name, "bold $text-primary"), f" {words}   "))
        return line

    def on_click(self, event: Click) -> None:
        for start, end, key in self._places:
            if start <= event.x < end:
                self.post_message(self.Chosen(key))
