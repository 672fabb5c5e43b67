"""The panel that steers a run while it trains: its rate, its schedule, its validation interval, a note."""

import math
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import HorizontalGroup, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, Static

from core.commands import (
    AddNote,
    Command,
    Pause,
    PlanSchedule,
    Resume,
    SampleNow,
    SaveNow,
    ScaleLearningRate,
    SetLearningRate,
    SetValidationInterval,
)
from core.series import factor_text
from tui.clean import clean
from tui.figures import count_from, count_text, rate_text

_FACTORS = (("half", "×½  h", 0.5), ("tenth", "×0.1  t", 0.1), ("double", "×2  d", 2.0))
_SHAPES = (("cosine", "Cosine to 0"), ("linear", "Linear to 0"), ("constant", "Constant"))
_AT_ONCE = (
    ("pause", "Pause", Pause()),
    ("save", "Checkpoint now", SaveNow()),
    ("sample", "Sample now", SampleNow()),
)


class SteerPanel(ModalScreen[Command | None]):
    """Returns the command that was chosen, None for none.

    Args:
        rate: the present one, None where it is not known yet.
        at: the entry to begin in: rate, interval or note; the first button otherwise.
        is_paused: whether the run waits now.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Cancel", tooltip="Leave the run as it is."),
        Binding("h", "scale(0.5)", "Halve", tooltip="Multiply the learning rate by one half."),
        Binding("t", "scale(0.1)", "Tenth", tooltip="Multiply the learning rate by one tenth."),
        Binding("d", "scale(2.0)", "Double", tooltip="Multiply the learning rate by two."),
        Binding("up", "app.focus_previous", "Previous", show=False, tooltip="Go to the control before."),
        Binding("down", "app.focus_next", "Next", show=False, tooltip="Go to the next control."),
    ]

    def __init__(self, rate: float | None, at: str = "", is_paused: bool = False) -> None:
        super().__init__()
        self.rate = rate
        self.at = at
        self._at_once: dict[str, tuple[str, Command]] = {n: (label, told) for n, label, told in _AT_ONCE}
        if is_paused:
            self._at_once["pause"] = ("Go on", Resume())

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = "Steer the run"
            now = f"The rate is {rate_text(self.rate)} now. " if self.rate is not None else ""
            yield Static(Content(f"{now}A new one follows the schedule in proportion."))
            with HorizontalGroup(classes="dialog-answers"):
                for name, label, _ in _FACTORS:
                    yield Button(
                        label, name=name, compact=True, variant="primary" if name == "half" else "default"
                    )
            yield from self._entry("rate", "New rate", "3e-4", "Set")
            yield from self._entry("plan", "Plan anew over", "tokens, such as 50M; empty: to the end", "")
            with HorizontalGroup(classes="dialog-answers"):
                for name, label in _SHAPES:
                    yield Button(label, name=name, compact=True)
            yield from self._entry("interval", "Validate every", "steps", "Set")
            yield from self._entry("note", "Note", "what you see, or did", "Add")
            with HorizontalGroup(classes="dialog-answers", id="steer-at-once"):
                for name, (label, _) in self._at_once.items():
                    yield Button(label, name=name, compact=True)
            yield Static(id="steer-problem", markup=False)

    def _entry(self, name: str, label: str, placeholder: str, button: str) -> ComposeResult:
        with HorizontalGroup(classes="dialog-entry"):
            yield Label(f"{label} ", classes="steer-label")
            yield Input(placeholder=placeholder, id=f"steer-{name}", compact=True, select_on_focus=True)
            if button:
                yield Button(button, name=name, compact=True)

    def on_mount(self) -> None:
        start = self.query_one(f"#steer-{self.at}", Input) if self.at else self.query(Button).first()
        start.focus()

    # ------------------------------------------------------------ what was chosen

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self._choose(event.button.name or "")

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        name = (event.input.id or "").removeprefix("steer-")
        # Over how many tokens says nothing yet of the shape.
        self._choose("cosine" if name == "plan" else name)

    def _choose(self, name: str) -> None:
        factors = {name: factor for name, _, factor in _FACTORS}
        if name in factors:
            self.dismiss(ScaleLearningRate(factor=factors[name]))
            return
        if name in self._at_once:
            self.dismiss(self._at_once[name][1])
            return
        command, problem = self._typed(name)
        if command:
            self.dismiss(command)
        else:
            self.query_one("#steer-problem", Static).update(Content(problem))

    def _typed(self, name: str) -> tuple[Command | None, str]:
        """The command that an entry makes, or what is wrong with it."""
        text = self._text("plan" if name in dict(_SHAPES) else name)
        shown = repr(clean(text, 20))
        if name == "rate":
            rate = _number(text)
            if 0 < rate <= 1:
                return SetLearningRate(learning_rate=rate), ""
            return None, f"{shown} is not a rate: a number above 0 and at most 1, such as 3e-4."
        if name == "interval":
            steps = count_from(text)
            if steps:
                return SetValidationInterval(steps=steps), ""
            return None, f"{shown} is not a number of steps: write one such as 100."
        if name == "note":
            return (AddNote(text=text), "") if text else (None, "The note is empty.")
        tokens = 0 if name == "constant" or not text else count_from(text)
        if tokens is None or (text and not tokens and name != "constant"):
            return None, f"{shown} is not a number of tokens: write one such as 300k or 50M."
        return PlanSchedule(shape=name, tokens=tokens), ""

    def _text(self, name: str) -> str:
        return self.query_one(f"#steer-{name}", Input).value.strip()

    def action_scale(self, factor: float) -> None:
        self.dismiss(ScaleLearningRate(factor=factor))

    def action_leave(self) -> None:
        self.dismiss(None)


def said_of(command: Command) -> str:
    """What the command will do, for the notice."""
    match command:
        case ScaleLearningRate():
            return f"Rate {factor_text(command.factor)} from the next step on."
        case SetLearningRate():
            return f"Rate {rate_text(command.learning_rate)} from the next step on."
        case PlanSchedule(shape="constant"):
            return "The rate stays as it is."
        case PlanSchedule(tokens=0):
            return f"{command.shape.capitalize()} to 0 at the run's last step."
        case PlanSchedule():
            return f"{command.shape.capitalize()} to 0 over {count_text(command.tokens)} tokens; the run ends there."
        case SetValidationInterval():
            return f"Validation every {command.steps} steps."
        case AddNote():
            return "Noted on the chart."
        case Pause():
            return "Pausing after this step."
        case Resume():
            return "Going on."
        case SaveNow():
            return "A checkpoint will be written after this step."
        case SampleNow():
            return "A sample will be drawn after this step."
        case _:
            return ""


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
