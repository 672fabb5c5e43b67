"""Asks what of a run shall go, says what follows from it, and has a word typed before anything does."""

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import HorizontalGroup, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, OptionList, Static
from textual.widgets.option_list import Option

from core.housekeeping import Keep, Removal, word_of
from tui.clean import clean, clean_line
from tui.figures import bytes_text
from tui.run_tables import removal_words

_LABELS: dict[Keep, str] = {
    "nothing": "Keep nothing",
    "best": "Keep best and last checkpoint",
    "last": "Keep last checkpoint",
    "log": "Keep the log alone",
}


class RemoveDialog(ModalScreen[Removal | None]):
    """Ends with the removal that was confirmed, or with None.

    Args:
        plans: what could be removed of one run, a plan for each policy.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Cancel", tooltip="Close the dialog and remove nothing."),
        Binding("pageup", "page(-1)", "Page up", show=False, tooltip="Scroll the text back."),
        Binding("pagedown", "page(1)", "Page down", show=False, tooltip="Scroll the text on."),
    ]

    def __init__(self, plans: Sequence[Removal]) -> None:
        super().__init__()
        self.plans = list(plans)
        self.word = word_of(plans[0].run)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Content(clean_line(f"Remove {self.plans[0].run.short_name}?", 60))
            yield OptionList(*(Option(self._label(at, False)) for at in range(len(self.plans))), compact=True)
            with VerticalScroll(classes="dialog-text", can_focus=False):
                yield Static(id="removal-words")
            with HorizontalGroup(classes="dialog-entry"):
                yield Label(Content(f"Type {self.word} to remove: "))
                yield Input(id="removal-word", compact=True, select_on_focus=True)
            yield Static(id="removal-problem")
            with HorizontalGroup(classes="dialog-answers"):
                yield Button("Remove", name="remove", variant="error", compact=True)
                yield Button("Cancel", name="cancel", compact=True)

    def on_mount(self) -> None:
        options = self.query_one(OptionList)
        options.highlighted = 0
        options.focus()

    @property
    def chosen(self) -> Removal:
        """The plan that is chosen now."""
        return self.plans[self.query_one(OptionList).highlighted or 0]

    def _label(self, at: int, is_chosen: bool) -> Content:
        plan = self.plans[at]
        sign = "●" if is_chosen else "○"
        return Content(f"{sign} {_LABELS[plan.keep]:<31}frees {bytes_text(plan.bytes_freed)}")

    @on(OptionList.OptionHighlighted)
    def _moved(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        for at in range(len(self.plans)):
            event.option_list.replace_option_prompt_at_index(at, self._label(at, at == event.option_index))
        words = [removal_words(self.chosen), *self.chosen.consequences]
        if self.chosen.needed_by:
            words.append(f"Not possible now: {self._needing_words()}")
        self.query_one("#removal-words", Static).update(Content(clean("\n".join(words))))
        self.query_one("#removal-problem", Static).update(Content(""))

    @on(OptionList.OptionSelected)
    def _taken(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.query_one(Input).focus()

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._confirm()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        if event.button.name == "remove":
            self._confirm()
        else:
            self.action_leave()

    def _confirm(self) -> None:
        typed = self.query_one(Input).value.strip()
        problem = (
            ""
            if typed == self.word
            else f"{clean_line(typed, 20)!r} is not {self.word}; nothing was removed."
        )
        if self.chosen.needed_by:
            problem = self._needing_words()
        if problem:
            self.query_one("#removal-problem", Static).update(Content(clean(problem, 200)))
            self.query_one(Input).focus()
        else:
            self.dismiss(self.chosen)

    def _needing_words(self) -> str:
        return f"{', '.join(self.chosen.needed_by)} starts from it and has no checkpoint yet."

    def action_page(self, direction: int) -> None:
        text = self.query_one(".dialog-text", VerticalScroll)
        text.scroll_relative(y=direction * text.size.height, animate=False)

    def action_leave(self) -> None:
        self.dismiss(None)
