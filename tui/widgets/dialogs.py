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
from textual.widgets import Button, Static

from tui.clean import clean


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

    def on_resize(self) -> None:
        stack_answers(self, [answer.label for answer in self.answers])

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


def stack_answers(screen: ModalScreen[str], labels: Sequence[str]) -> None:
    """Put a dialog's buttons one below the other where they have no room in a row."""
    # A label has a column on each side, and one more to the next button.
    needed = sum(len(label) + 3 for label in labels)
    width = screen.query_one(".dialog").content_size.width
    screen.query_one(".dialog-answers").set_class(needed > width, "-stacked")


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


def quit_dialog(run_name: str, step: int, is_queue: bool = False) -> ChoiceDialog:
    """Asks what shall become of the training run, or of the queue that it is part of, when the app is left."""
    goes_on = "it and the later stages go on" if is_queue else "it goes on"
    return ChoiceDialog(
        "Quit while training?",
        f"{run_name} is at step {step}. Stop and save writes a checkpoint first; it can go on later. "
        f"Detached, {goes_on} in a process of its own.",
        [
            Answer("save", "Stop and save", "primary"),
            Answer("detach", "Detach and quit"),
            Answer("cancel", "Cancel"),
            Answer("discard", "Quit without saving", "error"),
        ],
    )


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
