"""The Runs tab: every run under the root, the newest first, and what is known of the one under the cursor."""

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.events import Resize, Show
from textual.message import Message
from textual.widgets import DataTable, Static

from core.comparison import Comparison, compare
from core.errors import BbtuiError
from core.housekeeping import KEEPS, Removal, add_note, removal_of, remove
from core.runs import Run
from tui.clean import clean, clean_line
from tui.figures import bytes_text
from tui.messages import OpenRun, ResumeRun, RunChanged
from tui.widgets.compare_page import ComparePage
from tui.widgets.dialogs import error_dialog
from tui.widgets.note_dialog import NoteDialog
from tui.widgets.remove_dialog import RemoveDialog
from tui.widgets.run_table import Layout, RunTable, facts_of
from tui.workers.listing import Lister, RunDetails, RunRow

if TYPE_CHECKING:
    from tui.app import BbtuiApp

REFRESH_S = 2.0


class RunsPane(Vertical):
    """A table of runs that keeps itself up to date while it is seen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open_run", "Open", tooltip="Show the run under the cursor in its stage's tab."),
        Binding(
            "r,R", "resume_run", "Resume", tooltip="Go on with an unfinished run from its last checkpoint."
        ),
        Binding("space", "mark_run", "Mark", tooltip="Mark the run, to compare another with it."),
        Binding(
            "c",
            "compare_runs",
            "Compare",
            tooltip="Compare the run with the marked one, or with the one before it: settings and outcome.",
        ),
        Binding("n", "note_run", "Note", tooltip="Write a note on the run; it stands on its chart."),
        Binding(
            "D", "remove_run", "Remove", tooltip="Remove the run, or some of its checkpoints; it asks first."
        ),
        Binding(
            "y", "copy_name", "Copy name", show=False, tooltip="Copy the run's name, as commands take it."
        ),
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

    class Compared(Message):
        """From the worker: two runs side by side."""

        def __init__(self, comparison: Comparison) -> None:
            super().__init__()
            self.comparison = comparison

    class Planned(Message):
        """From the worker: what could be removed of a run, a plan for each policy."""

        def __init__(self, plans: list[Removal]) -> None:
            super().__init__()
            self.plans = plans

    class Done(Message):
        """From the worker: what was asked for is done."""

        def __init__(self, run: Run, said: str, is_gone: bool = False) -> None:
            super().__init__()
            self.run = run
            self.said = said
            self.is_gone = is_gone

    class Refused(Message):
        """From the worker: why something could not be done."""

        def __init__(self, error: BbtuiError) -> None:
            super().__init__()
            self.error = error

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.rows: list[RunRow] = []
        self.marked: Run | None = None
        self._lister: Lister | None = None
        self._is_looking = threading.Lock()
        self._layout = Layout.of(0)
        self._has_come = False

    def compose(self) -> ComposeResult:
        yield RunTable(id="runs-table")
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
        if all(row.run != self.marked for row in self.rows):
            self.marked = None
        self._show_rows(before.run if before else None)
        # The first run to come finds the focus nowhere: an empty tab has nothing to hold it.
        if self.rows and self.is_on_screen and (self.screen.focused is None or self._has_come):
            if self.screen.focused is None or self.has_focus_within:
                self.focus_default()
            self._has_come = False

    # ------------------------------------------------------------ showing

    def on_resize(self, _event: Resize) -> None:
        if self._layout != (layout := Layout.of(self.size.width)):
            self._layout = layout
            if self.rows:  # before they are known, hiding the table would leave the focus nowhere to go
                self._show_rows(self.row.run if self.row else None)

    def _show_rows(self, chosen: Run | None) -> None:
        self.table.show(self.rows, chosen, self.marked, self._layout)
        self._show_emptiness()
        self._look_closer()
        self.refresh_bindings()

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
        self.query_one("#runs-facts", Static).update(Content(clean("\n".join(facts_of(details)))))

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

    def action_mark_run(self) -> None:
        """Mark the run, or take its mark away."""
        if row := self._row_or_notice():
            self.marked = None if row.run == self.marked else row.run
            self._show_rows(row.run)

    def action_compare_runs(self) -> None:
        """Show the run beside the marked one; beside the one before it where none is marked."""
        if row := self._row_or_notice():
            other = self.marked if self.marked not in (None, row.run) else self._run_before(row)
            if other is None:
                self.app.notify("There is no other run to compare it with.", markup=False)
            else:
                self._in_thread("compare runs", lambda: self.Compared(compare(other, row.run)))

    def _run_before(self, row: RunRow) -> Run | None:
        """The next older run of the same stage, or else the parent."""
        older = self.rows[self.rows.index(row) + 1 :]
        same = (other.run for other in older if other.run.folder.parent == row.run.folder.parent)
        parent = row.summary.parent.partition("@")[0]
        return next(same, None) or next((o.run for o in self.rows if o.run.name == parent), None)

    @on(Compared)
    def _show_comparison(self, message: Compared) -> None:
        message.stop()
        self.app.push_screen(ComparePage(message.comparison))

    def action_note_run(self) -> None:
        """Ask for a note and write it."""
        if row := self._row_or_notice():
            self.app.push_screen(NoteDialog(row.run.short_name), partial(self._note, row.run))

    def _note(self, run: Run, text: str | None) -> None:
        def write() -> Message:
            is_told = add_note(run, text or "")
            return self.Done(run, "Its trainer will note it." if is_told else f"Noted on {run.short_name}.")

        if text:
            self._in_thread("write a note", write)

    def action_remove_run(self) -> None:
        """Ask what of the run shall go; nothing goes before a word is typed."""
        if row := self._row_or_notice():
            if row.summary.is_live:
                self.app.notify("It is being trained. Stop it first, in its tab: s.", markup=False)
                return
            store, run = self._app.store, row.run
            self._in_thread(
                "plan a removal", lambda: self.Planned([removal_of(store, run, keep) for keep in KEEPS])
            )

    @on(Planned)
    def _ask_what_goes(self, message: Planned) -> None:
        message.stop()
        self.app.push_screen(RemoveDialog(message.plans), self._remove)

    def _remove(self, plan: Removal | None) -> None:
        if plan is None:
            return
        store, run, keep = self._app.store, plan.run, plan.keep

        def work() -> Message:
            freed = bytes_text(remove(store, run, keep).bytes_freed)
            is_gone = keep == "nothing"
            what = "is removed" if is_gone else "is thinned"
            return self.Done(run, f"{run.short_name} {what}: {freed} freed.", is_gone)

        self._in_thread("remove a run", work)

    @on(Done)
    def _say_done(self, message: Done) -> None:
        message.stop()
        self.app.notify(clean_line(message.said, 150), markup=False)
        self.post_message(RunChanged(message.run, message.is_gone))
        self.look()

    @on(Refused)
    def _say_refused(self, message: Refused) -> None:
        message.stop()
        self.app.push_screen(error_dialog(message.error.what, message.error.fix))

    def _in_thread(self, name: str, work: Callable[[], Message]) -> None:
        """Do what may take a while off the UI thread; it ends in a message, an error of ours included."""

        def run() -> None:
            try:
                self.post_message(work())
            except BbtuiError as error:
                self.post_message(self.Refused(error))

        self.run_worker(run, name=name, thread=True, exit_on_error=False)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Resuming is offered only for a run that is unfinished."""
        del parameters
        return not (action == "resume_run" and self.row and not self.row.can_resume)

    def _row_or_notice(self) -> RunRow | None:
        if self.row is None:
            self.app.notify("There is no run yet. Press 1, then Enter, to pretrain.", markup=False)
        return self.row
