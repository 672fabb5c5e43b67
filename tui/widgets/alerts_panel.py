"""The panel of alerts: when the user gets word of runs, by which means, and a button to try them."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid, HorizontalGroup, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Checkbox, Input, Label, Static

from core.errors import BbtuiError
from tui.alert_channels import AlertChannels
from tui.alerts import KINDS
from tui.on_event import words_of

_MEANS = {"bell": "Ring the bell", "desktop": "Notify the desktop"}
_ABOUT_COMMAND = (
    "Run without a shell. BBTUI_EVENT, BBTUI_RUN and BBTUI_TEXT say what happened, so does JSON on its input."
)


class Tick(Checkbox):
    """A box that shows by its sign, not by its colour alone, whether it is ticked."""

    BUTTON_LEFT, BUTTON_RIGHT = "[", "]"

    @property
    def _button(self) -> Content:
        return Content(f"{self.BUTTON_LEFT}{'x' if self.value else ' '}{self.BUTTON_RIGHT}")


class AlertsPanel(ModalScreen[None]):
    """Ticks hold at once; a command holds from Enter, Try it or Close on, and not if Escape leaves it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "escape,f6", "leave", "Close", tooltip="Close the panel; a command not yet entered is dropped."
        ),
        Binding("up", "app.focus_previous", "Previous", show=False, tooltip="Go to the control before."),
        Binding("down", "app.focus_next", "Next", show=False, tooltip="Go to the next control."),
    ]

    def __init__(self, alerts: AlertChannels) -> None:
        super().__init__()
        self._alerts = alerts

    def compose(self) -> ComposeResult:
        settings = self._alerts.settings
        with Vertical(classes="dialog") as box:
            box.border_title = "Alerts"
            yield Label("Beside the notice on the screen:", classes="alerts-heading")
            with Grid(classes="alerts-ticks"):
                for name, label in _MEANS.items():
                    is_on = settings.bell if name == "bell" else settings.desktop
                    yield Tick(label, is_on, name=name, compact=True)
            with HorizontalGroup(id="alerts-entry"):
                yield Label("Command ")
                yield Input(
                    settings.command,
                    placeholder="a program and its arguments",
                    id="alerts-command",
                    compact=True,
                )
            yield Static(Content(_ABOUT_COMMAND), id="alerts-about")
            yield Label("When:", classes="alerts-heading")
            with Grid(classes="alerts-ticks"):
                for kind, label in KINDS.items():
                    yield Tick(label, settings.gives(kind), name=kind, compact=True)
            yield Static(id="alerts-problem", markup=False)
            with HorizontalGroup(classes="dialog-answers"):
                yield Button("Try it", name="try", variant="primary", compact=True)
                yield Button("Close", name="close", compact=True)

    def on_mount(self) -> None:
        self.query(Tick).first().focus()

    @on(Checkbox.Changed)
    def _switched(self, event: Checkbox.Changed) -> None:
        event.stop()
        self._alerts.settings.switch(event.checkbox.name or "", event.value)

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if self._kept_command():
            self.notify("The command is kept." if event.value.strip() else "No command is run.")

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        if not self._kept_command():
            return
        if event.button.name == "try":
            self._alerts.try_them()
        else:
            self.dismiss()

    def _kept_command(self) -> bool:
        """Whether what stands in the entry can be run, and is kept; if not, the panel says why."""
        entry = self.query_one("#alerts-command", Input)
        problem = ""
        try:
            words_of(entry.value)
        except BbtuiError as error:
            problem = f"{error.what} {error.fix}"
            entry.focus()
        else:
            self._alerts.settings.keep_command(entry.value.strip())
        self.query_one("#alerts-problem", Static).update(Content(problem))
        return not problem

    def action_leave(self) -> None:
        self.dismiss()
