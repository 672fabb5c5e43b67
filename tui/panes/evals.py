"""The Eval tab: what the second model gained and lost against the first, in words, figures and bars."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import HorizontalGroup, ScrollableContainer, Vertical
from textual.content import Content
from textual.events import Show
from textual.message import Message
from textual.widgets import Button, Static
from textual.worker import get_current_worker

from core.errors import BbtuiError
from core.runs import Runs
from tui.clean import clean_line
from tui.widgets.bar_chart import BarChart
from tui.widgets.dialogs import error_dialog
from tui.widgets.file_dialog import FileDialog
from tui.widgets.report_words import question_lines, report_bars, standing, styled, verdicts
from tui.workers import evaluate
from tui.workers.evaluate import Finished, Outlook, Progress
from tui.workers.failures import in_words
from tui.workers.listing import missing_words

if TYPE_CHECKING:
    from core.evals.results import Report
    from tui.app import BbtuiApp

_METER_COLUMNS = 20


class EvalPane(Vertical):
    """The last report, and the means to make a new one. It loads models only when it is told to evaluate."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,e", "evaluate", "Evaluate", tooltip="Measure the newest pair on held-out questions."),
        Binding("s", "stop", "Stop", tooltip="Stop the evaluation; the report before it stays."),
        Binding(
            "escape", "stop", "Stop", show=False, tooltip="Stop the evaluation; the report before it stays."
        ),
        Binding(
            "a", "add_file", "Add a file", tooltip="Measure on the questions of a file of yours as well."
        ),
        Binding(
            "x", "drop_files", "Drop files", show=False, tooltip="Leave your own question files out again."
        ),
        Binding("y", "copy_report", "Copy", tooltip="Copy the report's tables as Markdown."),
    ]

    class Looked(Message):
        """From the worker that looks under the root."""

        def __init__(self, outlook: Outlook) -> None:
            super().__init__()
            self.outlook = outlook

    class Arrived(Message):
        """From the worker that evaluates."""

        def __init__(self, item: Progress | Finished) -> None:
            super().__init__()
            self.item = item

    class Ended(Message):
        """The worker is done; `what` is empty unless it met an error."""

        def __init__(self, what: str = "", fix: str = "") -> None:
            super().__init__()
            self.what = what
            self.fix = fix

    class FileRead(Message):
        """A question file was tried: its number of questions, or what is wrong with it."""

        def __init__(self, path: Path, questions: int, what: str = "", fix: str = "") -> None:
            super().__init__()
            self.path = path
            self.questions = questions
            self.what = what
            self.fix = fix

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.outlook: Outlook | None = None
        self.report: Report | None = None
        self._measured: Report | None = None
        """The last report made here, even where it could not be kept."""
        self.qa_files: dict[Path, int] = {}
        """Files that the user added, and how many questions each holds."""
        self.is_evaluating = False
        self._stop = threading.Event()
        self._has_come = False
        self._typed = ""

    def compose(self) -> ComposeResult:
        yield Static(id="eval-standing")
        with ScrollableContainer(id="eval-body"):
            yield Static(id="eval-verdicts")
            yield BarChart(id="eval-bars")
            yield Static(id="eval-table")
            yield Static(id="eval-questions")
        with HorizontalGroup(id="eval-buttons"):
            yield Button("Evaluate", id="eval-start", variant="primary", compact=True)
            yield Button("Stop", id="eval-stop", compact=True)
            yield Button("Add QA file", id="eval-add", compact=True)
            yield Static(id="eval-files")

    def on_mount(self) -> None:
        self._show_all()

    @property
    def _app(self) -> "BbtuiApp":
        return cast("BbtuiApp", self.app)

    # ------------------------------------------------------------ what there is

    def on_show(self, _event: Show) -> None:
        self._has_come = True
        self.look()

    def look(self) -> None:
        """Look, off the UI thread, for the newest pair and the report that is kept."""
        store = self._app.store
        self.run_worker(
            lambda: self.post_message(self.Looked(evaluate.look(store))),
            name="look for a report",
            thread=True,
            exit_on_error=False,
        )

    def _best_report(self, outlook: Outlook) -> "Report | None":
        """The report of the newest pair, or else the newest; what was measured here need not have been kept."""
        reports = [report for report in (self._measured, outlook.report) if report]
        of_pair = (report for report in reports if evaluate.is_of_pair(report, outlook.models))
        return next(of_pair, reports[0] if reports else None)

    def focus_default(self) -> None:
        """Put the focus on the report, where Enter evaluates."""
        self.query_one("#eval-body").focus()

    def on_eval_pane_looked(self, message: Looked) -> None:
        message.stop()
        self.outlook = message.outlook
        if not self.is_evaluating:
            self.report = self._best_report(message.outlook)
            self._show_all()
        if self._has_come and self.is_on_screen:
            self._has_come = False
            if self.screen.focused is None or self.has_focus_within:
                self.focus_default()
        self.refresh_bindings()

    # ------------------------------------------------------------ evaluating

    @on(Button.Pressed, "#eval-start")
    def action_evaluate(self) -> None:
        """Measure the newest pair; without one, say what is missing."""
        if self.is_evaluating:
            self.app.notify("An evaluation is going on. s stops it.", severity="warning", markup=False)
            return
        self.is_evaluating = True
        self._stop = threading.Event()
        self._show_standing("Loading the models…")
        self._show_buttons()
        store, files, stop = self._app.store, list(self.qa_files), self._stop
        self.run_worker(
            lambda: self._measure(store, files, stop), name="evaluation", thread=True, exit_on_error=False
        )

    def _measure(self, store: Runs, files: list[Path], stop: threading.Event) -> None:
        """Runs in the worker's thread; it reaches the screen by messages only."""
        worker = get_current_worker()
        try:
            for item in evaluate.evaluate_pair(store, files, lambda: stop.is_set() or worker.is_cancelled):
                self.post_message(self.Arrived(item))
        except BbtuiError as error:
            self.post_message(self.Ended(error.what, error.fix))
        except Exception as error:  # whatever it is, the screen lives on and names the log
            self.post_message(self.Ended(*in_words(error, store.folder)))
        else:
            self.post_message(self.Ended())

    def on_eval_pane_arrived(self, message: Arrived) -> None:
        message.stop()
        item = message.item
        if isinstance(item, Progress):
            if not self._stop.is_set():
                self._show_standing(_meter(item))
            return
        self.report = self._measured = item.report
        if item.problem:
            self.app.notify(clean_line(item.problem, 150), severity="warning", markup=False)

    def on_eval_pane_ended(self, message: Ended) -> None:
        message.stop()
        self.is_evaluating = False
        self._show_all()
        if message.what:
            self.app.push_screen(error_dialog(message.what, message.fix))
        elif self._stop.is_set():
            self.app.notify("Evaluation stopped. The report before it stays.", markup=False)
        self.look()

    @on(Button.Pressed, "#eval-stop")
    def action_stop(self) -> None:
        if self.is_evaluating:
            self._stop.set()
            self._show_standing("Stopping…")

    # ------------------------------------------------------------ files of the user's

    @on(Button.Pressed, "#eval-add")
    def action_add_file(self) -> None:
        """Ask for a file of questions, and try it before it is taken."""
        why = "JSON Lines with question and answer, or text with lines Q: and A:. Relative to where bbtui was started."
        self.app.push_screen(
            FileDialog("Add a file of questions", why, "questions.jsonl", self._typed), self._try_file
        )

    def _try_file(self, typed: str | None) -> None:
        if not typed:
            return
        self._typed = typed
        self.run_worker(
            lambda: self.post_message(self._read_file(typed)),
            name="read a file",
            thread=True,
            exit_on_error=False,
        )

    def _read_file(self, typed: str) -> "EvalPane.FileRead":
        path = Path(typed)
        try:
            path = path.expanduser().absolute()
            return self.FileRead(path, evaluate.count_questions(path))
        except BbtuiError as error:
            return self.FileRead(path, 0, error.what, error.fix)
        except Exception as error:  # a home folder that is not known, a library's own failure
            return self.FileRead(path, 0, *in_words(error, self._app.store.folder))

    def on_eval_pane_file_read(self, message: FileRead) -> None:
        message.stop()
        if message.what:
            self.app.push_screen(error_dialog(message.what, message.fix, title="This file cannot be used"))
            return
        self._typed = ""
        self.qa_files[message.path] = message.questions
        self._show_buttons()
        self.app.notify(
            clean_line(f"Added {message.path.name}: {message.questions} questions. Enter evaluates.", 150),
            markup=False,
        )

    def action_drop_files(self) -> None:
        """Measure on the built-in sets only from now on."""
        self.qa_files.clear()
        self._show_buttons()

    # ------------------------------------------------------------ showing

    def action_copy_report(self) -> None:
        """Copy the tables as Markdown, and say so."""
        if self.report is None:
            self.app.notify("There is no report to copy yet.", severity="warning", markup=False)
            return
        self.app.copy_to_clipboard(evaluate.as_markdown(self.report, self._app.domain))
        self.app.notify("Copied the report as Markdown.", markup=False)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A key that would do nothing is neither bound nor shown."""
        del parameters
        allowed = {"stop": self.is_evaluating, "evaluate": not self.is_evaluating}
        return allowed.get(action, True)

    def _show_all(self) -> None:
        domain = self._app.domain
        report = self.report
        verdict_lines = verdicts(report, domain) if report else []
        table_lines = evaluate.as_lines(report, domain) if report else []
        self._show("#eval-verdicts", [styled(line) for line in verdict_lines])
        heads = ("Mean probability", "model ", "Other figures")
        self._show("#eval-table", [styled(line, line.startswith(heads)) for line in table_lines])
        self.query_one(BarChart).show(report_bars(report, domain) if report else [])
        self._show(
            "#eval-questions", [styled(line) for line in question_lines(report, domain)] if report else []
        )
        self._show_standing()
        self._show_buttons()

    def _show(self, selector: str, lines: list[Content]) -> None:
        widget = self.query_one(selector, Static)
        widget.update(Content("\n").join(lines))
        widget.display = bool(lines)

    def _show_standing(self, words: str = "") -> None:
        if not words and self.outlook:
            models = self.outlook.models
            wanted = "baseball-finetune" if models.general else "finetune"
            missing = missing_words(wanted, models, self._app.domain)
            is_current = self.report is not None and evaluate.is_of_pair(self.report, models)
            words = standing(models, self.report, is_current, missing)
        self.query_one("#eval-standing", Static).update(Content(words or "Looking for a report…"))

    def _show_buttons(self) -> None:
        self.query_one("#eval-start", Button).disabled = self.is_evaluating
        self.query_one("#eval-stop", Button).disabled = not self.is_evaluating
        self.query_one("#eval-add", Button).disabled = self.is_evaluating
        names = ", ".join(f"{path.name} ({count})" for path, count in self.qa_files.items())
        words = f"also {names}   x drops" if names else ""
        self.query_one("#eval-files", Static).update(Content(clean_line(words, 200)))
        self.refresh_bindings()


def _meter(progress: Progress) -> str:
    """Progress as a bar, a share and words."""
    share = progress.done / progress.total if progress.total else 0.0
    full = round(share * _METER_COLUMNS)
    bar = "━" * full + "─" * (_METER_COLUMNS - full)
    return f"{bar} {share * 100:.0f} %  {progress.done}/{progress.total}  {clean_line(progress.what, 60)}"
