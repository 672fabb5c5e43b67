"""A small form for how answers are drawn."""

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import HorizontalGroup, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from core.sampling import Sampling
from tui.clean import clean_line

_MAX_SEED = 2**31 - 1
Number = Callable[[str], float]
_FIELDS: dict[str, tuple[str, Number, float, float, str]] = {
    "temperature": ("temperature", float, 0, 10, "0: always the likeliest"),
    "top_k": ("top-k", int, 0, 10**6, "so many likeliest; 0: all"),
    "top_p": ("top-p", float, 0.01, 1, "likeliest share; 1: all"),
    "seed": ("seed", int, 0, _MAX_SEED, "same seed, same answer"),
    "max_tokens": ("longest", int, 1, 4096, "tokens at most"),
}


class SamplingForm(ModalScreen[Sampling | None]):
    """Ends with the new settings, or with None where nothing changes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "Back", tooltip="Close the form and change nothing."),
        Binding("up", "app.focus_previous", "Up", show=False, tooltip="Go to the setting above."),
        Binding("down", "app.focus_next", "Down", show=False, tooltip="Go to the setting below."),
    ]

    def __init__(self, choice: Sampling) -> None:
        super().__init__()
        self.choice = choice

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Content("Sampling, the same for both models")
            for key, (label, *_limits, why) in _FIELDS.items():
                with HorizontalGroup(classes="form-row"):
                    yield Static(Content(label), classes="form-label")
                    yield Input(f"{getattr(self.choice, key):g}", id=f"sampling-{key}", compact=True)
                    yield Static(Content(why), classes="form-why")
            yield Static(classes="form-problem")
            with HorizontalGroup(classes="dialog-answers"):
                yield Button("Take", id="take", variant="primary", compact=True)
                yield Button("Back", id="back", compact=True)

    @on(Input.Submitted)
    @on(Button.Pressed, "#take")
    def take(self) -> None:
        """End with the settings typed; a problem is shown beneath them instead."""
        values: dict[str, float] = {}
        for key, (label, kind, low, high, _why) in _FIELDS.items():
            box = self.query_one(f"#sampling-{key}", Input)
            try:
                values[key] = kind(box.value.strip())
            except ValueError:
                values[key] = float("nan")
            if not low <= values[key] <= high:
                typed = clean_line(box.value, 20)
                problem = f"✗ {label}: {typed!r} is not a number from {low:,} to {high:,}."
                self.query_one(".form-problem", Static).update(Content(problem))
                box.focus()
                return
        self.dismiss(Sampling(**values))  # type: ignore[arg-type]

    @on(Button.Pressed, "#back")
    def back(self) -> None:
        self.dismiss(None)
