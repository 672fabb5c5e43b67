"""The bottom line of a stage's tab: how far the stages are, and the buttons that make sense now."""

from textual.app import ComposeResult
from textual.containers import HorizontalGroup
from textual.content import Content
from textual.widgets import Button

from tui.widgets.stage_rail import StageRail

_KEYS_FROM_COLUMNS = 72

# name (which is the pane's action), label, key
_BUTTONS = (
    ("start", "Start", "⏎"),
    ("resume", "Resume", "R"),
    ("settings", "Settings", "S"),
    ("quickstart", "Quickstart", "Q"),
    ("pause", "Pause", "p"),
    ("stop", "Stop", "s"),
    ("rate", "Rate", "r"),
)


class ControlBar(HorizontalGroup):
    """The stage rail and the buttons. A button's name is the action that it stands for."""

    def __init__(self, stage: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.rail = StageRail(stage)
        self._buttons = {
            name: Button(label, name=name, id=f"button-{name}", compact=True) for name, label, _ in _BUTTONS
        }

    def compose(self) -> ComposeResult:
        yield self.rail
        yield from self._buttons.values()

    def button(self, name: str) -> Button:
        return self._buttons[name]

    def show(self, names: set[str], labels: dict[str, str], primary: str) -> None:
        """Show the buttons of these names.

        Args:
            labels: what some of them are called in place of their usual label.
            primary: the one that stands out.
        """
        with_keys = self.size.width >= _KEYS_FROM_COLUMNS
        for name, usual, key in _BUTTONS:
            label = labels.get(name, usual)
            text = f"{label} {key}" if with_keys else label
            button = self.button(name)
            button.label = Content(text)
            button.styles.width = len(text) + 2
            button.variant = "primary" if name == primary else "default"
            button.display = name in names
