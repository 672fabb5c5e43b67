"""A line to write a note on."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from core.commands import LONGEST_NOTE
from tui.clean import clean_line


class NoteDialog(ModalScreen[str]):
    """Ends with the note, or with an empty text where none shall be written."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Cancel", tooltip="Write no note."),
    ]

    def __init__(self, run_name: str) -> None:
        super().__init__()
        self.run_name = run_name

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Content(f"Note on {clean_line(self.run_name, 40)}")
            yield Static(Content("It stands on the chart where the run is now, and is kept with it."))
            yield Input(placeholder="what you see, or did", max_length=LONGEST_NOTE, compact=True, id="note")
            yield Static(Content("enter write   esc back"), classes="dialog-hint")

    @on(Input.Submitted)
    def _written(self, event: Input.Submitted) -> None:
        event.stop()
        self.dismiss(event.value.strip())

    def action_leave(self) -> None:
        self.dismiss("")
