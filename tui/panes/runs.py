"""The Runs tab: every run under the root, the newest first, and what is known of the one under the cursor."""

import threading
from typing import TYPE_CHECKING, ClassVar, cast

from rich.cells import cell_len
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.coordinate import Coordinate
from textual.events import Resize, Show
from textual.message import Message
from textual.widgets import DataTable, Static

from core.runs import Run
from tui.clean import clean, clean_line
from tui.figures import bytes_text, count_text, local_time_text, loss_text
from tui.messages import OpenRun, ResumeRun
from tui.workers.listing import Lister, RunDetails, RunRow

if TYPE_CHECKING:
    from tui.app import BbtuiApp

REFRESH_S = 2.0
WIDE_COLUMNS = 130
_COLUMNS = ("stage", "run", "state", "step", "train", "val", "tokens", "started", "preset", "parent")


class RunTable(DataTable[Text]):
    """A table of runs, a row each."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "enter", "select_cursor", "Open", tooltip="Show the run under the cursor in its stage's tab."
        ),
    ]


class RunsPane(Vertical):
    """A table of runs that keeps itself up to date while it is seen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open_run", "Open", tooltip="Show the run under the cursor in its stage's tab."),
        Binding(
            "r,R", "resume_run", "Resume", tooltip="Go on with an unfinished run from its last checkpoint."
        ),
        Binding("y", "copy_name", "Copy name", tooltip="Copy the run's name, as commands take it."),
    ]

    class Listed(Message):
        """From the worker: the rows of all runs."""

        def __init__(self, rows: list[RunRow]) -> None:
            super().__init__()
            self.rows = rows

    class Detailed(Message):
        """From the worker: what takes longer, of one run."""

        def __init__(self, details: RunDetails) -> None:
            super().__init__()
            self.details = details

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.rows: list[RunRow] = []
        self._lister: Lister | None = None
        self._is_looking = threading.Lock()
        self._shown: list[tuple[str, ...]] = []
        self._frame: tuple[list[int], list[Run]] | None = None
        """The table's widths and runs; while they stay, single cells are changed."""
        self._is_wide = False
        self._has_come = False

    def compose(self) -> ComposeResult:
        yield RunTable(id="runs-table", cursor_type="row", cell_padding=0, zebra_stripes=False)
        yield Static(id="runs-empty")
        with VerticalScroll(id="runs-details"):
            yield Static(id="runs-facts")

    def on_mount(self) -> None:
        self._lister = Lister(self._app.store)
        self.query_one("#runs-empty").display = False
        self.set_interval(REFRESH_S, self._refresh_if_seen)

    @property
    def _app(self) -> "BbtuiApp":
        return cast("BbtuiApp", self.app)

    @property
    def table(self) -> RunTable:
        return self.query_one(RunTable)

    @property
    def row(self) -> RunRow | None:
        """The run under the cursor."""
        at = self.table.cursor_row
        return self.rows[at] if 0 <= at < len(self.rows) else None

    def focus_default(self) -> None:
        """Put the focus on the table, where Enter opens a run."""
        self.table.focus()

    # ------------------------------------------------------------ looking

    def on_show(self, _event: Show) -> None:
        self._has_come = True
        self.look()

    def _refresh_if_seen(self) -> None:
        if self.is_on_screen and self.screen.is_active:
            self.look()

    def look(self) -> None:
        """Read the runs again, off the UI thread; a look still going on is enough."""
        if self._lister and not self._is_looking.locked():
            self.run_worker(self._look, name="list runs", thread=True, exit_on_error=False)

    def _look(self) -> None:
        """Runs in the worker's thread; it reaches the screen by messages only."""
        if self._lister and self._is_looking.acquire(blocking=False):
            try:
                self.post_message(self.Listed(self._lister.rows()))
            finally:
                self._is_looking.release()

    def on_runs_pane_listed(self, message: Listed) -> None:
        message.stop()
        before = self.row
        self.rows = message.rows
        self._show_rows(before.run if before else None)
        # The first run to come finds the focus nowhere: an empty tab has nothing to hold it.
        if self.rows and self.is_on_screen and (self.screen.focused is None or self._has_come):
            if self.screen.focused is None or self.has_focus_within:
                self.focus_default()
            self._has_come = False

    # ------------------------------------------------------------ showing

    def on_resize(self, _event: Resize) -> None:
        if self._is_wide != (self.size.width >= WIDE_COLUMNS):
            self._is_wide = not self._is_wide
            row = self.row
            self._show_rows(row.run if row else None)

    def _show_rows(self, chosen: Run | None) -> None:
        """Bring the table up to date; the cursor stays on its run, wherever that has moved."""
        cells = [self._cells(row) for row in self.rows]
        # Widths are given: the table's own measuring can come too late for the first picture.
        widths = [max(map(cell_len, column)) + 1 for column in zip(_COLUMNS, *cells, strict=True)]
        frame = (widths, [row.run for row in self.rows])
        if frame == self._frame:
            self._update_cells(cells)
        else:
            self._fill_table(cells, widths, chosen)
        self._frame, self._shown = frame, cells
        self._show_emptiness()
        self._look_closer()
        self.refresh_bindings()

    def _fill_table(self, cells: list[tuple[str, ...]], widths: list[int], chosen: Run | None) -> None:
        table, scroll = self.table, self.table.scroll_offset
        table.clear(columns=True)
        for name, width in zip(_COLUMNS, widths, strict=True):
            table.add_column(Text(name), key=name, width=width)
        for line in cells:
            table.add_row(*map(Text, line))
        at = next((i for i, row in enumerate(self.rows) if row.run == chosen), 0)
        table.move_cursor(row=at, scroll=False)
        table.scroll_to(*scroll, animate=False)

    def _update_cells(self, cells: list[tuple[str, ...]]) -> None:
        for at, (line, before) in enumerate(zip(cells, self._shown, strict=True)):
            for column, (cell, old) in enumerate(zip(line, before, strict=True)):
                if cell != old:
                    self.table.update_cell_at(Coordinate(at, column), Text(cell))

    def _show_emptiness(self) -> None:
        has_runs = bool(self.rows)
        self.table.display = has_runs
        self.query_one("#runs-details").display = has_runs
        empty = self.query_one("#runs-empty", Static)
        empty.display = not has_runs
        folder = clean_line(str(self._app.store.folder), 200)
        empty.update(
            Content(f"No run yet. Press 1, then Enter, to pretrain.\nRuns will stand under {folder}.")
        )

    def _cells(self, row: RunRow) -> tuple[str, ...]:
        run, summary = row.run, row.summary
        cells = (
            run.folder.parent.name,
            run.id if self._is_wide else run.short_name.rpartition("/")[2],
            row.state,
            f"{summary.step}/{summary.steps}",
            "–" if summary.train_loss is None else loss_text(summary.train_loss),
            "–" if summary.validation_loss is None else loss_text(summary.validation_loss),
            count_text(summary.tokens),
            local_time_text(summary.started_at),
            row.preset,
            summary.parent if self._is_wide else _short(summary.parent),
        )
        return tuple(clean_line(cell, 60) for cell in cells)

    @on(DataTable.RowHighlighted)
    def _moved(self, event: DataTable.RowHighlighted) -> None:
        event.stop()
        self._look_closer()
        self.refresh_bindings()

    def _look_closer(self) -> None:
        """Find out, off the UI thread, what stands in the panel."""
        row, lister = self.row, self._lister
        if row is None or lister is None:
            return
        self.run_worker(
            lambda: self.post_message(self.Detailed(lister.details(row))),
            name="read a run",
            group="details",
            thread=True,
            exclusive=True,
            exit_on_error=False,
        )

    def on_runs_pane_detailed(self, message: Detailed) -> None:
        message.stop()
        details = message.details
        if self.row is None or self.row.run != details.row.run:
            return
        self.query_one("#runs-facts", Static).update(Content(clean("\n".join(_facts(details)))))

    # ------------------------------------------------------------ acting

    @on(DataTable.RowSelected)
    def _selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        self.action_open_run()

    def action_open_run(self) -> None:
        """Let the app show the run in its stage's tab."""
        if row := self._row_or_notice():
            self.post_message(OpenRun(row.run))

    def action_resume_run(self) -> None:
        """Let the app go on with the run."""
        if row := self._row_or_notice():
            self.post_message(ResumeRun(row.run))

    def action_copy_name(self) -> None:
        """Copy the run's name, and say so."""
        if row := self._row_or_notice():
            self.app.copy_to_clipboard(clean_line(row.run.name))
            self.app.notify(clean_line(f"Copied {row.run.name}.", 150), markup=False)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Resuming is offered only for a run that is unfinished."""
        del parameters
        return not (action == "resume_run" and self.row and not self.row.can_resume)

    def _row_or_notice(self) -> RunRow | None:
        if self.row is None:
            self.app.notify("There is no run yet. Press 1, then Enter, to pretrain.", markup=False)
        return self.row


def _facts(details: RunDetails) -> list[str]:
    """What the panel says of a run, a fact a line."""
    row, run = details.row, details.row.run
    sizes = [f"{step} ({bytes_text(size)})" for step, size in details.checkpoint_bytes.items()]
    steps = ", ".join(sizes) or "none yet"
    lines = [
        f"{run.name}   {row.state}   preset {row.preset}",
        f"parent       {row.summary.parent or 'none: random weights'}",
        f"path         {run.folder}",
        f"lineage      {' ← '.join(_short(name) for name in details.lineage)}",
        f"checkpoints  step {steps}   in all {bytes_text(details.bytes_used)}",
        f"last active  {local_time_text(row.summary.last_at) or 'never'}",
    ]
    if row.summary.message:
        lines.insert(1, f"because      {clean_line(row.summary.message, 300)}")
    if row.can_resume:
        lines.insert(1, "unfinished   r resumes it from its last checkpoint")
    return lines


def _short(name: str) -> str:
    """`stage/` and the end of the id, the step kept: `pretrain/7f3a@600`."""
    stage, _, rest = name.partition("/")
    return f"{stage}/{rest.rpartition('-')[2]}" if rest else name
