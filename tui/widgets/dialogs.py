"""The dialogs: a question with a few answers, an error, the rate, long text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import HorizontalGroup, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, Static

from core.events import Command, ScaleLearningRate, SetLearningRate
from tui.clean import clean
from tui.figures import rate_text


@dataclass(frozen=True, slots=True)
class Answer:
    """One button of a dialog. Its name is what the dialog returns."""

    name: str
    label: str
    variant: Literal["default", "primary", "error"] = "default"


class ChoiceDialog(ModalScreen[str]):
    """Asks a question; the first answer has the focus, Escape gives the answer named `cancel`."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", tooltip="Close the dialog and change nothing."),
        Binding("left,up", "app.focus_previous", "Previous", show=False, tooltip="Go to the answer before."),
        Binding("right,down", "app.focus_next", "Next", show=False, tooltip="Go to the next answer."),
        Binding("pageup", "page(-1)", "Page up", show=False, tooltip="Scroll the text back."),
        Binding("pagedown", "page(1)", "Page down", show=False, tooltip="Scroll the text on."),
        Binding("y", "copy", "Copy", show=False, tooltip="Copy the dialog's text."),
    ]

    def __init__(self, title: str, text: str, answers: Sequence[Answer], kind: str = "question") -> None:
        super().__init__(classes=f"-{kind}")
        self.title_text = clean(title)
        self.text = clean(text)
        self.answers = answers

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Content(self.title_text)
            with VerticalScroll(classes="dialog-text", can_focus=False):
                yield Static(Content(self.text))
            with HorizontalGroup(classes="dialog-answers"):
                for answer in self.answers:
                    label = Content(answer.label)
                    yield Button(label, variant=answer.variant, name=answer.name, compact=True)

    def on_mount(self) -> None:
        self.query(Button).first().focus()

    @on(Button.Pressed)
    def _answered(self, event: Button.Pressed) -> None:
        event.stop()
        if event.button.name == "copy":
            self.action_copy()
        else:
            self.dismiss(event.button.name or "cancel")

    def action_cancel(self) -> None:
        self.dismiss("cancel")

    def action_page(self, direction: int) -> None:
        text = self.query_one(".dialog-text", VerticalScroll)
        text.scroll_relative(y=direction * text.size.height, animate=False)

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(f"{self.title_text}\n{self.text}")
        self.app.notify("Copied.")


def error_dialog(
    what: str, fix: str = "", log: str = "", title: str = "That did not work", fixes: Sequence[Answer] = ()
) -> ChoiceDialog:
    """A dialog that says what happened, what to do, and which file holds more.

    Args:
        fixes: buttons that do something about it; the first has the focus.
    """
    parts = [what]
    if fix:
        parts.append(fix)
    if log:
        parts.append(f"Log: {log}")
    answers = [*fixes, Answer("cancel", "Close"), Answer("copy", "Copy")]
    return ChoiceDialog(title, "\n\n".join(parts), answers, kind="error")


def stop_dialog(run_name: str, step: int) -> ChoiceDialog:
    """Asks how a run shall stop: save, cancel, or discard."""
    return ChoiceDialog(
        "Stop training?",
        f"{run_name} is at step {step}. With a checkpoint it can go on later, exactly where it stopped.",
        [
            Answer("save", "Stop and save", "primary"),
            Answer("cancel", "Cancel"),
            Answer("discard", "Stop without saving", "error"),
        ],
    )


def quit_dialog(run_name: str, step: int) -> ChoiceDialog:
    """Asks what shall become of the training run when the app is left."""
    return ChoiceDialog(
        "Quit while training?",
        f"{run_name} is at step {step}. Stop and save writes a checkpoint first; the run can go on later.",
        [
            Answer("save", "Stop and save", "primary"),
            Answer("cancel", "Cancel"),
            Answer("discard", "Quit without saving", "error"),
        ],
    )


class RatePanel(ModalScreen[Command | None]):
    """Changes the learning rate: by a factor, or to a value."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Cancel", tooltip="Leave the rate as it is."),
        Binding("h", "scale(0.5)", "Halve", tooltip="Multiply the learning rate by one half."),
        Binding("t", "scale(0.1)", "Tenth", tooltip="Multiply the learning rate by one tenth."),
        Binding("d", "scale(2.0)", "Double", tooltip="Multiply the learning rate by two."),
    ]

    def __init__(self, rate: float | None) -> None:
        super().__init__()
        self.rate = rate

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = "Learning rate"
            now = f"It is {rate_text(self.rate)} now. " if self.rate is not None else ""
            yield Static(Content(f"{now}The schedule goes on from the new value in proportion."))
            with HorizontalGroup(classes="dialog-answers"):
                yield Button("×½  h", name="0.5", variant="primary", compact=True)
                yield Button("×0.1  t", name="0.1", compact=True)
                yield Button("×2  d", name="2.0", compact=True)
            with HorizontalGroup(classes="dialog-entry"):
                yield Label("New value ")
                yield Input(placeholder="3e-4", compact=True, select_on_focus=True)
                yield Button("Set", name="set", compact=True)
            yield Static(id="rate-problem", markup=False)

    def on_mount(self) -> None:
        self.query(Button).first().focus()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        if event.button.name == "set":
            self._set_typed()
        else:
            self.action_scale(float(event.button.name or 1))

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._set_typed()

    def _set_typed(self) -> None:
        text = self.query_one(Input).value.strip()
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if 0 < value <= 1:
            self.dismiss(SetLearningRate(learning_rate=value))
        else:
            problem = f"{clean(text, 20)!r} is not a rate: a number above 0 and at most 1, such as 3e-4."
            self.query_one("#rate-problem", Static).update(Content(problem))

    def action_scale(self, factor: float) -> None:
        self.dismiss(ScaleLearningRate(factor=factor))

    def action_leave(self) -> None:
        self.dismiss(None)


class TextScreen(ModalScreen[None]):
    """A page of text to scroll: the help, the log of notices, all samples."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,f1", "leave", "Close", tooltip="Close this page."),
        Binding("y", "copy", "Copy", tooltip="Copy this page's text."),
    ]

    def __init__(self, title: str, content: Content) -> None:
        super().__init__()
        self.title_text = clean(title)
        self.content_text = content

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="page") as box:
            box.border_title = Content(self.title_text)
            box.border_subtitle = "esc close   y copy"
            yield Static(self.content_text)

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()

    def action_leave(self) -> None:
        self.dismiss()

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(self.content_text.plain)
        self.app.notify("Copied.")


class WaitScreen(ModalScreen[None]):
    """Says what is being waited for; it is closed by whoever opened it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Content(self.text))
