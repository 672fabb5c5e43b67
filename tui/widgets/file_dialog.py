"""Asks for the path of a file."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import HorizontalGroup, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static


class FileDialog(ModalScreen[str | None]):
    """Ends with the path as typed, or with None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "Back", tooltip="Close the dialog and take no file."),
    ]

    def __init__(self, title: str, why: str, placeholder: str, typed: str = "") -> None:
        super().__init__()
        self.heading = title
        self.why = why
        self.placeholder = placeholder
        self.typed = typed

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Content(self.heading)
            yield Static(Content(self.why))
            yield Input(self.typed, placeholder=self.placeholder, select_on_focus=False)
            with HorizontalGroup(classes="dialog-answers"):
                yield Button("Take", id="take", variant="primary", compact=True)
                yield Button("Back", id="back", compact=True)

    @on(Input.Submitted)
    @on(Button.Pressed, "#take")
    def take(self) -> None:
        """End with the path; with nothing typed, go on asking."""
        if typed := self.query_one(Input).value.strip():
            self.dismiss(typed)

    @on(Button.Pressed, "#back")
    def back(self) -> None:
        self.dismiss(None)
