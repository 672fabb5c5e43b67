"""The app: it carries messages between panes and workers, and trains one run at a time."""

import subprocess
from functools import partial
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType

from core.config import DEFAULT_PRESET, STAGES, load_stage, stage_title
from core.errors import BbtuiError
from core.runs import Run, Runs, data_folder
from tui.clean import clean_line
from tui.detached import train_detached
from tui.leaving import LeavableFrame
from tui.messages import (
    DetachOwnRun,
    OpenRun,
    QueueFound,
    QueueMoved,
    ResumeRun,
    RunChanged,
    RunOpened,
    RunsFound,
    StageFailed,
    StageFinished,
    StartQuickstart,
    StartStage,
    StopOwnRun,
)
from tui.queue_keeper import QueueKeeper
from tui.trainer import DETACHED, Trainer
from tui.widgets.dialogs import Answer, error_dialog
from tui.widgets.settings_form import SettingsForm
from tui.workers.detached_start import DetachedBegun, DetachedFailed, DetachedStart
from tui.workers.find_runs import RunFinder
from tui.workers.training import StageRequest

_SECONDS_TO_DETACH = 15.0


class BbtuiApp(LeavableFrame):
    """Trains four stages, talks to the two models, compares them.

    Args:
        root: the folder that holds `checkpoints/`.
        preset: what new runs are configured by.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "Q", "quickstart", "Quickstart", show=False, tooltip="Train all four stages, or go on with them."
        ),
        Binding("U", "queue", "Queue", show=False, tooltip="Show the queue of stages and what can be done."),
        Binding(
            "A", "stop_after", "Stop after this stage", show=False, tooltip="Stop the queue after this stage."
        ),
    ]

    def __init__(self, root: Path, preset: str = DEFAULT_PRESET) -> None:
        self.store = Runs(root)
        self.preset = preset
        trainer = Trainer(self.store, self.post_message, data_folder(root))
        super().__init__(root, trainer, self._read_domain())
        self.queue = QueueKeeper(self)
        self.finished_stages: frozenset[str] = frozenset()
        self._finder = RunFinder(self.store, self.post_message, lambda: self.preset, self.alerts.watch.watch)
        self._elsewhere: list[subprocess.Popen[bytes]] = []
        """Detached from here. Held, so that each is reaped when it ends before the app does."""
        self._detached_starts: dict[str, DetachedStart] = {}
        """By their stages: runs that are about to begin in processes of their own."""

    def all_mounted(self) -> None:
        self.alerts.watch.start()
        self._finder.start()

    def on_unmount(self) -> None:
        self._finder.leave()
        self.alerts.watch.leave()
        for start in self._detached_starts.values():
            start.leave(_SECONDS_TO_DETACH)

    # ------------------------------------------------------------ runs under the root

    def on_runs_found(self, message: RunsFound) -> None:
        if not self.stands:
            return
        self.finished_stages = frozenset(stage for stage, found in message.runs.items() if found.has_finished)
        self.stage_states = {
            stage: "completed" if found.has_finished else found.state for stage, found in message.runs.items()
        }
        self._elsewhere = [process for process in self._elsewhere if process.poll() is None]
        first_live = ""
        for stage, found in message.runs.items():
            pane = self.stage_pane(stage)
            is_live = found.state in ("running", "paused")
            if pane.is_live or self.trainer.stage == stage or self.trainer.is_training(found.run):
                continue
            if is_live and not pane.is_following(found.run):
                pane.show_run(found.run)
                first_live = first_live or stage
            elif pane.state is None:
                pane.show_run(found.run)
        for pane in self.stage_panes:
            pane.show_all()
        if first_live:
            self.notify(f"{stage_title(first_live, self.domain)} is being trained by another process.")
            if message.is_first or self.queue.goes_along(first_live):
                self.action_tab(first_live)

    def on_queue_found(self, message: QueueFound) -> None:
        if self.stands and not self.is_leaving:
            self.queue.found(message)

    def look_now(self) -> None:
        """Look under the root without waiting for the next turn."""
        self._finder.look_now()

    def show_stop_after(self, stage: str) -> None:
        """Mark on the stage rail that the queue stops after this stage; an empty text takes the mark away."""
        self.stop_after = stage
        self._show_status()

    @on(OpenRun)
    def _open_run(self, message: OpenRun) -> None:
        pane = self.stage_pane(message.run.stage)
        if self.trainer.stage == pane.stage and not self.trainer.is_training(message.run):
            self.notify("This stage is being trained; its run stays on the tab until it ends.")
        elif pane.state is None or pane.state.run != message.run or not pane.is_live:
            pane.show_run(message.run)
        self.action_tab(pane.stage)

    @on(RunChanged)
    def _run_changed(self, message: RunChanged) -> None:
        pane = self.stage_pane(message.run.stage)
        if pane.state and pane.state.run == message.run and not pane.is_live:
            if message.is_gone:
                pane.forget_run()
            else:
                pane.show_run(message.run)
        self._finder.look_now()

    @on(SettingsForm.PresetChosen)
    async def _preset_chosen(self, message: SettingsForm.PresetChosen) -> None:
        self.preset = message.preset
        self.domain = self._read_domain()
        self.header.show(tabs=self.tabs())
        self._finder.look_now()
        for pane in self.stage_panes:
            await pane.preset_changed()

    def _read_domain(self) -> str:
        try:
            return clean_line(load_stage(self.preset, STAGES[-1], self.store.root).domain, 24)
        except BbtuiError:
            return "baseball"

    # ------------------------------------------------------------ training

    @on(StartStage)
    def _start_stage(self, message: StartStage) -> None:
        request = StageRequest(message.stage, message.preset, message.from_run, tuple(message.overrides))
        if message.detached:
            self._begin_detached(request)
        else:
            self.begin(request)

    @on(ResumeRun)
    def _resume_run(self, message: ResumeRun) -> None:
        self.begin(StageRequest(message.run.stage, resume=message.run))

    def begin(self, request: StageRequest) -> bool:
        """Train this, unless something else is being trained; whether it has begun."""
        if self.is_refused(request.stage):
            return False
        self.trainer.start(request)
        self._show_starting(request.stage, request.resume)
        return True

    def _begin_detached(self, request: StageRequest) -> None:
        if self._is_trained_elsewhere(request.stage):
            return
        self._await_detached(request)
        self._show_starting(request.stage, None)

    def _await_detached(
        self, request: StageRequest, process: "subprocess.Popen[bytes] | None" = None
    ) -> None:
        folder, command = data_folder(self.store.root), self.alerts.settings.command
        start = DetachedStart(self.store, request, self.post_message, folder, command, process)
        self._detached_starts[request.stage] = start.start()

    @on(DetachedBegun)
    def _detached_begun(self, message: DetachedBegun) -> None:
        if message.process not in self._elsewhere:
            self._elsewhere.append(message.process)
        self._detached_starts.pop(message.run.stage, None)
        if not self.stands:
            return
        self.alerts.watch.watch([message.run])
        pane = self.stage_pane(message.run.stage)
        pane.starting = ""
        pane.show_run(message.run)
        if pane.state:
            pane.state.is_live = True  # until the follower has looked itself
        pane.show_all()
        if not message.was_resumed:
            self.notify(
                f"{message.run.short_name} is trained by a process of its own. You can leave the app."
            )

    @on(DetachedFailed)
    def _detached_failed(self, message: DetachedFailed) -> None:
        self._detached_starts.pop(message.stage, None)
        if not self.stands:
            return
        self.stage_pane(message.stage).own_run_ended()
        self._finder.look_now()
        self.push_screen(error_dialog(message.what, message.fix, message.log, "That could not be started"))

    def is_refused(self, stage: str) -> bool:
        """Whether nothing can be begun at this stage now; if so, it is said why."""
        if self.trainer.is_busy:
            busy = stage_title(self.trainer.stage, self.domain)
            self.notify(
                f"{busy} is being trained. One run at a time: stop it first, or wait.", severity="warning"
            )
            return True
        return self._is_trained_elsewhere(stage)

    def _is_trained_elsewhere(self, stage: str) -> bool:
        if not self.stage_pane(stage).is_live:
            return False
        self.notify("Another process is training this stage. Stop it first: s.", severity="warning")
        return True

    def _show_starting(self, stage: str, resume: Run | None) -> None:
        pane = self.stage_pane(stage)
        pane.starting = "Starting: loading PyTorch and the data…"
        if resume:
            pane.show_run(resume, is_own=True)
        else:
            pane.forget_run()
        if self.pane is pane:
            pane.focus()

    @on(StopOwnRun)
    def _stop_own_run(self, message: StopOwnRun) -> None:
        if start := self._detached_starts.get(message.stage):
            start.stop(message.save)
        else:
            self.trainer.stop(message.save)
        self.notify(
            "Stopping: a checkpoint is written first." if message.save else "Stopping without saving."
        )

    @on(DetachOwnRun)
    def _detach_own_run(self) -> None:
        if self.trainer.detach():
            self.notify("Detaching: a checkpoint is written first.")
        elif self._detached_starts:
            self.notify("It runs in a process of its own: leave the app whenever you like.")
        else:
            self.notify("It is ending already.")

    def _go_on_elsewhere(self, run: Run, is_queue: bool) -> None:
        try:
            command = self.alerts.settings.command
            process = self.queue.go_on_elsewhere(command) if is_queue else train_detached(run, command)
            self._elsewhere.append(process)
        except BbtuiError as error:
            self.stay()
            fixes = [Answer("resume", "Resume here", "primary")]
            dialog = error_dialog(error.what, error.fix, title="That could not be detached", fixes=fixes)
            self.push_screen(dialog, partial(self._error_answered, run, is_queue))
        else:
            what = "The queue" if is_queue else run.short_name
            self.notify(f"{what} goes on in a process of its own. You can leave the app.")
            if self.is_leaving or not self.stands:
                return
            queue = self.queue.file if is_queue else None
            self._await_detached(StageRequest(run.stage, resume=run, queue=queue), process)
            pane = self.stage_pane(run.stage)
            pane.starting = "Starting: a process of its own takes the run…"
            pane.show_all()

    @on(QueueMoved)
    def _queue_moved(self, message: QueueMoved) -> None:
        """A stage of the queue begins; the view goes along if it was on the one before."""
        if not self.stands or not self.trainer.is_queue:
            return
        stage, before = message.task.stage, [pane for pane in self.stage_panes if pane.is_own]
        self._finder.look_now()
        if self.stage_pane(stage).starting:
            return  # it is the queue's first, begun by a key
        for pane in before:
            pane.own_run_ended()
        self._show_starting(stage, None)
        if self.pane in before:
            self.action_tab(stage)

    @on(RunOpened)
    def _run_opened(self, message: RunOpened) -> None:
        if not self.stands:
            return
        pane = self.stage_pane(message.run.stage)
        if not pane.is_following(message.run):
            pane.show_run(message.run, is_own=True)

    @on(StageFinished)
    def _stage_finished(self, message: StageFinished) -> None:
        run, reason, is_queue = message.run, message.reason, self.trainer.is_queue
        self._training_over(run.stage)
        title = stage_title(run.stage, self.domain)
        if reason == DETACHED:
            self._go_on_elsewhere(run, is_queue)
        if self.is_leaving:
            self.leave_now()
        elif reason == DETACHED:
            pass
        elif is_queue:
            self.queue.ended(run, reason)
        elif reason == "completed":
            self.notify(f"{title} is finished.{self.queue.rest_after(run)}")
        else:
            self.notify(f"{title} ended: {reason}.", severity="warning")

    @on(StageFailed)
    def _stage_failed(self, message: StageFailed) -> None:
        is_queue = self.trainer.is_queue
        self._training_over(message.stage)
        if self.is_leaving:
            self.leave_now()
            return
        run = message.run
        can_resume = run is not None and bool(run.checkpoint_steps())
        fixes = [Answer("resume", "Resume from the last checkpoint", "primary")] if can_resume else []
        title = f"{stage_title(message.stage, self.domain)} failed" if run else "That could not be started"
        self.push_screen(
            error_dialog(message.what, message.fix, message.log, title, fixes),
            partial(self._error_answered, run, is_queue),
        )

    def _error_answered(self, run: Run | None, is_queue: bool, answer: str | None) -> None:
        if answer != "resume" or run is None:
            return
        if is_queue:
            self.queue.go_on()
        else:
            self._resume_run(ResumeRun(run))

    def _training_over(self, stage: str) -> None:
        self.trainer.ended()
        self.queue.own_work_over()
        if not self.stands:
            return
        self.stage_pane(stage).own_run_ended()
        self._finder.look_now()

    @on(StartQuickstart)
    def action_quickstart(self) -> None:
        """All four stages, one after the other, then the chat; or the rest of them."""
        if len(self.stage_panes) == len(STAGES):
            self.queue.begin_or_ask()

    def action_stop_after(self) -> None:
        self.queue.toggle_stop_after()

    def action_queue(self) -> None:
        self.queue.open_screen()
