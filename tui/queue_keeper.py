"""The app's side of the queue: begins it, goes on with it, stops it after a stage, and follows one worked elsewhere."""

import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from core.config import PARENT_STAGE, STAGES, check_stage_name, stage_title
from core.errors import BbtuiError
from core.runs import Run
from core.stage_queue import QueueFile, Standing, new_queue
from tui.detached import work_off_detached
from tui.messages import QueueFound
from tui.queue_words import halt_words
from tui.widgets.dialogs import Answer, ChoiceDialog, error_dialog
from tui.widgets.queue_screen import QueueScreen
from tui.workers.training import StageRequest

if TYPE_CHECKING:
    from tui.app import BbtuiApp

_READY = "Both models are ready: ask them the same question."


class QueueKeeper:
    """Knows where the root's queue stands, as of the last look, and does what the keys ask of it."""

    def __init__(self, app: "BbtuiApp") -> None:
        self._app = app
        self.file = QueueFile(app.store)
        self.standing: Standing | None = None
        self.problem: BbtuiError | None = None
        """Why the file cannot be read."""
        self.is_elsewhere = False
        """Whether another process works the queue off."""
        self._is_known = False
        self._is_asked = False
        """Whether Q was pressed before the first look was over."""
        self._own_until = 0.0
        """Monotonic time at which this app's own work on it ended: looks begun before saw that work."""
        self._process: subprocess.Popen[bytes] | None = None
        """Works the queue off, started here."""

    # ------------------------------------------------------------ what was found

    def found(self, message: QueueFound) -> None:
        """Take in what a look under the root brought, and say what has changed."""
        is_first, self._is_known = not self._is_known, True
        was_elsewhere = self.is_elsewhere
        self.standing, self.problem = message.standing, message.problem
        is_own = self._app.trainer.is_queue or message.looked_at < self._own_until
        is_starting = self._process is not None and self._process.poll() is None
        is_worked = bool(self.standing and self.standing.is_worked)
        self.is_elsewhere = is_starting or (is_worked and not is_own)
        self._show()
        if self._is_asked:
            self.begin_or_ask()
        elif was_elsewhere and not self.is_elsewhere:
            self._say_end()
        elif is_first and self._waits and not self._app.trainer.is_busy:
            self._app.notify(f"The queue {self._halt_words()}. Q goes on.")

    def _show(self) -> None:
        self._app.show_stop_after(self.standing.stop_after if self.standing else "")
        if isinstance(self._app.screen, QueueScreen):
            self._app.screen.show(self.standing, self.problem, self._is_worked)

    def _say_end(self) -> None:
        if self._waits:
            self._app.notify(f"The queue {self._halt_words()}. Q goes on.", severity="warning")
        elif self.standing:
            if self._app.pane is self._app.stage_pane(STAGES[-1]):
                self._app.action_tab("chat")
            self._app.notify(_READY)

    def goes_along(self, stage: str) -> bool:
        """Whether the view shall go to this stage, begun by another process: it followed that queue so far."""
        before = PARENT_STAGE[check_stage_name(stage)]
        pane = self._app.pane
        return self.is_elsewhere and before is not None and pane is not None and pane.id == before

    @property
    def _is_worked(self) -> bool:
        return self.is_elsewhere or self._app.trainer.is_queue

    @property
    def _waits(self) -> bool:
        """Whether there is a queue that was begun, is not done, and is not being worked off."""
        standing = self.standing
        return bool(standing and not standing.is_done and any(standing.summaries) and not self._is_worked)

    def _title(self, stage: str) -> str:
        return stage_title(stage, self._app.domain)

    def _halt_words(self) -> str:
        assert self.standing
        task = self.standing.next
        return halt_words(self.standing, self._title(task.stage) if task else "")

    # ------------------------------------------------------------ beginning, going on

    def begin_or_ask(self) -> None:
        """Begin all four stages, or, where a queue was left unfinished, ask whether to go on with it."""
        self._is_asked = not self._is_known
        task = self.standing.next if self.standing and self._waits else None
        if self._is_asked:
            return
        if self.is_elsewhere:
            self._app.notify("Another process works off the queue; each stage shows up in its tab.")
        elif self._app.is_refused(task.stage if task else STAGES[0]):
            pass
        elif self.problem:
            fixes = [Answer("anew", "Start anew", "primary")]
            dialog = error_dialog(self.problem.what, self.problem.fix, fixes=fixes)
            self._app.push_screen(dialog, self._answered)
        elif self._waits:
            self._app.push_screen(_unfinished_dialog(self._halt_words()), self._answered)
        else:
            self._begin_anew()

    def _answered(self, answer: str | None) -> None:
        match answer:
            case "go on":
                self.go_on()
            case "anew":
                self._begin_anew()
            case "clear":
                self._clear()
            case _:
                pass

    def go_on(self) -> None:
        """Work off the rest of the queue."""
        task = self.standing.next if self.standing else None
        if task is None:
            self._app.notify("The queue has nothing left to do. Q begins a new one.")
            return
        resume = Run(self.file.store.folder / task.run) if task.run else None
        if self._app.begin(StageRequest(task.stage, resume=resume, queue=self.file)):
            self._app.action_tab(task.stage)

    def _begin_anew(self) -> None:
        queue = new_queue(self._app.preset)
        if self._app.begin(StageRequest(STAGES[0], self._app.preset, queue=self.file, new_queue=queue)):
            self._app.action_tab(STAGES[0])
            self._app.notify("All four stages, one after the other; then the chat opens.")

    # ------------------------------------------------------------ ending, handing over

    def own_work_over(self) -> None:
        """This app works on it no more."""
        self._own_until = time.monotonic()

    def ended(self, run: Run, reason: str) -> None:
        """Say why this app's work on the queue is over; when all is done the chat opens."""
        title = self._title(run.stage)
        if reason != "completed":
            self._app.notify(f"{title} ended: {reason}. The queue waits; Q goes on.", severity="warning")
        elif run.stage == (self.standing.stages[-1] if self.standing else STAGES[-1]):
            self._app.action_tab("chat")
            self._app.notify(_READY)
        else:
            self._app.notify(f"Stopped after {title}, as asked. Q goes on.")

    def rest_after(self, run: Run) -> str:
        """What to add when a run of the queue was finished by itself; empty where it is none, or the last."""
        entries = self.standing.queue.entries if self.standing else ()
        return " Q goes on with the queue." if run.name in [entry.run for entry in entries[:-1]] else ""

    def go_on_elsewhere(self, on_event: str) -> "subprocess.Popen[bytes]":
        """A process of its own that goes on with the queue from here. Raises: RetryLaterError.

        Args:
            on_event: the user's command for alerts.
        """
        self._process = work_off_detached(self.file, on_event)
        self.is_elsewhere = True
        return self._process

    # ------------------------------------------------------------ stopping after a stage, showing, clearing

    def toggle_stop_after(self) -> None:
        """Let the queue stop after the present stage, or go on to its end after all."""
        try:
            queue = self.file.read()
            present = self._present_stage()
            if queue is None or not present:
                self._app.notify("There is no queue to stop. Q begins one.")
                return
            if present == queue.entries[-1].stage:
                self._app.notify(f"{self._title(present)} is the last stage: nothing follows it.")
                return
            is_set = queue.stop_after in STAGES[STAGES.index(check_stage_name(present)) :]
            queue = self.file.stop_after("" if is_set else present)
        except BbtuiError as error:
            self._app.push_screen(error_dialog(error.what, error.fix))
            return
        if self.standing:
            self.standing = replace(self.standing, queue=queue)
        self._show()
        self._app.look_now()
        said = "goes on to its end after all" if is_set else f"stops after {self._title(present)}"
        self._app.notify(f"The queue {said}.")

    def _present_stage(self) -> str:
        """The stage that is being trained or comes next; an empty text where nothing does."""
        if self._app.trainer.is_queue:
            return self._app.trainer.stage
        ahead = self.standing.stages_ahead if self.standing else []
        return ahead[0] if ahead else ""

    def open_screen(self) -> None:
        """Show the queue's stages and what can be done with it."""
        screen = QueueScreen(self._app.domain)
        self._app.push_screen(screen, self._answered)
        screen.show(self.standing, self.problem, self._is_worked)

    def _clear(self) -> None:
        try:
            self.file.clear()
        except BbtuiError as error:
            self._app.push_screen(error_dialog(error.what, error.fix))
            return
        self.standing = self.problem = None
        self._show()
        self._app.notify("The queue is cleared; its runs stay.")


def _unfinished_dialog(halt: str) -> ChoiceDialog:
    return ChoiceDialog(
        "Go on with the queue?",
        f"The queue {halt}. It can go on exactly from there.",
        [
            Answer("go on", "Go on", "primary"),
            Answer("anew", "Start anew"),
            Answer("cancel", "Cancel"),
        ],
    )
