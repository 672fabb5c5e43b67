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
    ResumeRun,
    RunOpened,
    RunsFound,
    StageFailed,
    StageFinished,
    StartQuickstart,
    StartStage,
    StopOwnRun,
)
from tui.trainer import DETACHED, Trainer
from tui.widgets.dialogs import Answer, error_dialog
from tui.widgets.settings_form import SettingsForm
from tui.workers.find_runs import RunFinder
from tui.workers.training import StageRequest


class BbtuiApp(LeavableFrame):
    """Trains four stages, talks to the two models, compares them.

    Args:
        root: the folder that holds `checkpoints/`.
        preset: what new runs are configured by.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "Q", "quickstart", "Quickstart", show=False, tooltip="Train all four stages, then open the chat."
        ),
    ]

    def __init__(self, root: Path, preset: str = DEFAULT_PRESET) -> None:
        self.store = Runs(root)
        self.preset = preset
        trainer = Trainer(self.store, self.post_message, data_folder(root))
        super().__init__(root, trainer, self._read_domain())
        self.finished_stages: frozenset[str] = frozenset()
        self._finder = RunFinder(self.store, self.post_message, lambda: self.preset, self.alerts.watch.watch)
        self._elsewhere: list[subprocess.Popen[bytes]] = []
        """Detached from here. Held, so that each is reaped when it ends before the app does."""

    def all_mounted(self) -> None:
        self.alerts.watch.start()
        self._finder.start()

    def on_unmount(self) -> None:
        self._finder.leave()
        self.alerts.watch.leave()

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
            if message.is_first:
                self.action_tab(first_live)

    @on(OpenRun)
    def _open_run(self, message: OpenRun) -> None:
        pane = self.stage_pane(message.run.stage)
        if self.trainer.stage == pane.stage and not self.trainer.is_training(message.run):
            self.notify("This stage is being trained; its run stays on the tab until it ends.")
        elif pane.state is None or pane.state.run != message.run or not pane.is_live:
            pane.show_run(message.run)
        self.action_tab(pane.stage)

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
        self._begin(StageRequest(message.stage, message.preset, message.from_run, tuple(message.overrides)))

    @on(ResumeRun)
    def _resume_run(self, message: ResumeRun) -> None:
        self._begin(StageRequest(message.run.stage, resume=message.run))

    def _begin(self, request: StageRequest) -> None:
        if self._is_refused(request.stage):
            return
        self.trainer.start(request)
        self._show_starting(request)

    def _is_refused(self, stage: str) -> bool:
        if self.trainer.is_busy:
            busy = stage_title(self.trainer.stage, self.domain)
            self.notify(
                f"{busy} is being trained. One run at a time: stop it first, or wait.", severity="warning"
            )
            return True
        if self.stage_pane(stage).is_live:
            self.notify("Another process is training this stage. Stop it first: s.", severity="warning")
            return True
        return False

    def _show_starting(self, request: StageRequest) -> None:
        pane = self.stage_pane(request.stage)
        pane.starting = "Starting: loading PyTorch and the data…"
        if request.resume:
            pane.show_run(request.resume, is_own=True)
        else:
            pane.leave_run()
            pane.state = None
            pane.action_chart()
            pane.show_all()
        if self.pane is pane:
            pane.focus()

    @on(StopOwnRun)
    def _stop_own_run(self, message: StopOwnRun) -> None:
        self.trainer.stop(message.save)
        self.notify(
            "Stopping: a checkpoint is written first." if message.save else "Stopping without saving."
        )

    @on(DetachOwnRun)
    def _detach_own_run(self) -> None:
        chained = self.trainer.is_chained
        if not self.trainer.detach():
            self.notify("It has not begun yet; detach it in a moment.")
            return
        rest = " The later stages are not started." if chained else ""
        self.notify(f"Detaching: a checkpoint is written first.{rest}")

    def _go_on_elsewhere(self, run: Run) -> None:
        try:
            self._elsewhere.append(train_detached(run, self.alerts.settings.command))
        except BbtuiError as error:
            fixes = [Answer("resume", "Resume here", "primary")]
            dialog = error_dialog(error.what, error.fix, title="That could not be detached", fixes=fixes)
            self.push_screen(dialog, partial(self._error_answered, run))
        else:
            self.notify(f"{run.short_name} goes on in a process of its own. You can leave the app.")

    @on(RunOpened)
    def _run_opened(self, message: RunOpened) -> None:
        if not self.stands:
            return
        pane = self.stage_pane(message.run.stage)
        if not pane.is_following(message.run):
            pane.show_run(message.run, is_own=True)

    @on(StageFinished)
    def _stage_finished(self, message: StageFinished) -> None:
        stage = message.run.stage
        self._training_over(stage)
        title = stage_title(stage, self.domain)
        if message.reason == DETACHED:
            self._go_on_elsewhere(message.run)
        if self.is_leaving:
            self.leave_now()
        elif message.reason == DETACHED:
            pass
        elif message.reason != "completed":
            chained = self.trainer.is_chained
            self.trainer.end_chain()
            rest = " The later stages are not started." if chained else ""
            self.notify(f"{title} ended: {message.reason}.{rest}", severity="warning")
        elif self.trainer.is_chained:
            self._go_on_after(stage)
        else:
            self.notify(f"{title} is finished.")

    def _go_on_after(self, stage: str) -> None:
        """The next stage of the quickstart begins; the view goes along if it was on the stage before."""
        if following := self.trainer.start_next():
            self._show_starting(StageRequest(following))
            if self._switcher.current == stage:
                self.action_tab(following)
        else:
            self.action_tab("chat")
            self.notify("Both models are ready: ask them the same question.")

    @on(StageFailed)
    def _stage_failed(self, message: StageFailed) -> None:
        self._training_over(message.stage)
        self.trainer.end_chain()
        if self.is_leaving:
            self.leave_now()
            return
        run = message.run
        can_resume = run is not None and bool(run.checkpoint_steps())
        fixes = [Answer("resume", "Resume from the last checkpoint", "primary")] if can_resume else []
        title = f"{stage_title(message.stage, self.domain)} failed" if run else "That could not be started"
        self.push_screen(
            error_dialog(message.what, message.fix, message.log, title, fixes),
            partial(self._error_answered, run),
        )

    def _error_answered(self, run: Run | None, answer: str | None) -> None:
        if answer == "resume" and run is not None:
            self._resume_run(ResumeRun(run))

    def _training_over(self, stage: str) -> None:
        self.trainer.ended()
        if not self.stands:
            return
        self.stage_pane(stage).own_run_ended()
        self._finder.look_now()

    @on(StartQuickstart)
    def action_quickstart(self) -> None:
        """All four stages, one after the other, then the chat."""
        if len(self.stage_panes) < len(STAGES) or self._is_refused(STAGES[0]):
            return
        stage = self.trainer.start_all(self.preset)
        self._show_starting(StageRequest(stage))
        self.action_tab(stage)
        self.notify("All four stages, one after the other; then the chat opens.")
