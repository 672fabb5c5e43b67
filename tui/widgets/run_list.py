"""A list of the models that there are, to choose one from."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from core.runs import Run
from tui.clean import clean_line
from tui.figures import loss_text
from tui.workers.listing import Lister, RunRow

_COLUMNS_WITH_LOSS = 74


class RunList(ModalScreen[Run | str | None]):
    """Ends with a run, with NEWEST for the newest pair, or with None where nothing was chosen."""

    NEWEST = "newest"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "Back", tooltip="Close the list and keep the model."),
    ]

    class Listed(Message):
        """From the worker: the runs that have a checkpoint."""

        def __init__(self, rows: list[RunRow]) -> None:
            super().__init__()
            self.rows = rows

    def __init__(self, lister: Lister, title: str) -> None:
        super().__init__()
        self.lister = lister
        self.heading = title
        self.rows: list[RunRow] = []

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Content(self.heading)
            yield OptionList(Option(Content("Newest pair: follow what is trained"), id=self.NEWEST))
            yield Static(Content("↑↓ choose   enter take   esc back"), classes="dialog-hint")

    def on_mount(self) -> None:
        self.run_worker(self._look, thread=True, exit_on_error=False, name="list of models")

    def _look(self) -> None:
        self.post_message(self.Listed([row for row in self.lister.rows() if row.checkpoint_steps]))

    def on_run_list_listed(self, message: Listed) -> None:
        self.rows = message.rows
        options, width = self.query_one(OptionList), self.size.width
        options.add_options(Option(Content(_line(row, width)), id=str(i)) for i, row in enumerate(self.rows))
        if not self.rows:
            options.add_option(Option(Content("No run has a checkpoint yet."), disabled=True))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.dismiss(
            self.NEWEST if event.option_id == self.NEWEST else self.rows[int(event.option_id or 0)].run
        )


def _line(row: RunRow, width: int) -> str:
    """The run on one line: name, state, step, and its validation loss where there is room."""
    validation = row.summary.validation_loss
    loss = "" if validation is None or width < _COLUMNS_WITH_LOSS else f"val {loss_text(validation)}"
    name, state = clean_line(row.run.short_name, 22), clean_line(row.state, 13)
    return f"{name:<22} {state:<13} step {row.checkpoint_steps[-1]:<7} {loss}".rstrip()
