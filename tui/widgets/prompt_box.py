"""Where a prompt is typed: Enter asks, Ctrl+J begins a new line, Up in the empty box takes the last prompt up again."""

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import TextArea

from tui.clean import clean


class PromptBox(TextArea):
    """A text box that grows with its text; while it has the focus, every printable key is text."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "Ask", tooltip="Ask the model or models with this prompt."),
        Binding("ctrl+j", "new_line", "New line", show=False, tooltip="Begin a new line in the prompt."),
        Binding("up", "up", "Last prompt", show=False, tooltip="In the empty box: edit the last prompt."),
    ]

    class Submitted(Message):
        """Someone asks."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class LastWanted(Message):
        """Someone pressed Up in the empty box."""

    def __init__(self, placeholder: str = "", id: str | None = None) -> None:
        super().__init__(
            id=id, compact=True, highlight_cursor_line=False, placeholder=placeholder, tab_behavior="focus"
        )

    def action_submit(self) -> None:
        """Hand the text on and clear the box; white space alone is nothing to ask."""
        if text := clean(self.text).strip():
            self.post_message(self.Submitted(text))

    def action_new_line(self) -> None:
        self.insert("\n")

    def action_up(self) -> None:
        if self.text:
            self.action_cursor_up()
        else:
            self.post_message(self.LastWanted())

    def fill(self, text: str) -> None:
        """Put a text into the box, the cursor at its end."""
        self.load_text(text)
        self.move_cursor(self.document.end)

    async def _on_key(self, event: events.Key) -> None:
        # TextArea takes Enter for a new line before any binding sees it.
        if event.key == "enter":
            event.stop()
            event.prevent_default()
            self.action_submit()

    async def _on_paste(self, event: events.Paste) -> None:
        event.prevent_default()
        event.stop()
        self.insert(clean(event.text))
