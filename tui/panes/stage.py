"""A stage's tab: its settings, its run as a curve with figures, the keys that command it. Used four times."""

from functools import partial
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.widgets import Button

from core.commands import Command, Pause, Resume, SampleNow, SaveNow, ScaleLearningRate, Stop
from core.config import PARENT_STAGE, check_stage_name, preset_names, stage_title
from core.errors import BbtuiError
from tui.messages import DetachOwnRun, ResumeRun, StartQuickstart, StartStage, StopOwnRun
from tui.panes.stage_looks import LOOKS, StageLooks
from tui.panes.stage_words import missing_words
from tui.widgets.dialogs import error_dialog, stop_dialog
from tui.widgets.plan_screen import CANCEL, DETACHED, START, PlanScreen
from tui.widgets.run_lines import summary_of
from tui.widgets.settings_form import SettingsForm
from tui.widgets.steer_panel import SteerPanel, said_of
from tui.workers.planning import Planner, PlanRequest

_PARENTS_OFFERED = 30


class StagePane(StageLooks):
    """One stage: a run shown, and the keys that start and command one."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "start", "Start", tooltip="Start a new run of this stage with these settings."),
        Binding("i", "plan", "Plan", tooltip="Say what a new run would take: time, memory, disk, epochs."),
        Binding("R", "resume", "Resume", tooltip="Go on with the shown run from its last checkpoint."),
        Binding("S", "settings", "Settings", tooltip="Show the settings of a new run, or the chart again."),
        Binding("p", "pause", "Pause or go on", tooltip="Pause the run after this step, or let it go on."),
        Binding("s", "stop", "Stop", tooltip="Stop the run, with or without a checkpoint."),
        Binding("r", "rate", "Rate", tooltip="Change the learning rate, or plan its schedule anew."),
        Binding("v", "interval", "Validate every", tooltip="Change how often the run is validated."),
        Binding(
            "d", "detach", "Detach", tooltip="Let the run go on in a process of its own, without the app."
        ),
        Binding("n", "note", "Note", tooltip="Write something down about this step; it stands on the chart."),
        Binding("minus,left_square_bracket", "halve", "Halve rate", tooltip="Halve the rate at once."),
        Binding("c", "save", "Checkpoint", tooltip="Write a checkpoint now."),
        Binding("g", "sample", "Sample", tooltip="Let the model write a sample now."),
        *LOOKS,
        Binding("y", "copy", "Copy", tooltip="Copy the sample, or the run's figures."),
        Binding("escape", "chart", "Chart", show=False, tooltip="Go back to the chart, or to the whole run."),
    ]

    # ------------------------------------------------------------ starting

    @on(Button.Pressed)
    async def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        await self.run_action(event.button.name or "copy")

    def action_start(self) -> None:
        if self.replay:
            self.notify("A run is being told again. w ends it; then Enter starts a new one.")
            return
        if self.is_live:
            self.notify("A run of this stage is going on. Stop it first: s.")
        elif self._app.trainer.is_busy:
            busy = stage_title(self._app.trainer.stage, self._app.domain)
            notice = f"{busy} is being trained in this app: start this one detached, or wait."
            self._plan((CANCEL, DETACHED), notice)
        else:
            self._plan((START, DETACHED, CANCEL))

    def action_plan(self) -> None:
        if self.is_live or self.replay:
            self._plan((CANCEL,))
        else:
            self._plan((CANCEL, DETACHED) if self._app.trainer.is_busy else (CANCEL, START, DETACHED))

    def _plan(self, answers: tuple[str, ...], notice: str = "") -> None:
        form = self.query_one(SettingsForm)
        if form.problems:
            self.app.push_screen(
                error_dialog("\n".join(form.problems), "Correct the settings, then start again.")
            )
            return
        chosen = form.parent_name if form.is_filled else ""
        missing = missing_words(self.stage, self._app.finished_stages, self._app.domain)
        if missing and not chosen:
            self.notify(missing, severity="warning")
            return
        request = PlanRequest(self.stage, self._app.preset, chosen or None, tuple(form.overrides))
        title = f"{stage_title(self.stage, self._app.domain)}: a new run"
        planner = partial(Planner, self._app.store, request)
        self.app.push_screen(PlanScreen(title, planner, answers, notice), partial(self._answered, request))

    def _answered(self, request: PlanRequest, answer: str | None) -> None:
        if answer in (START, DETACHED):
            self.post_message(
                StartStage(
                    request.stage,
                    request.preset,
                    request.from_run,
                    request.overrides,
                    detached=answer == DETACHED,
                )
            )

    def action_resume(self) -> None:
        if self.is_live:
            self.notify("This run is going on already.")
            return
        if self.state is None or not self.state.can_resume:
            self.notify("There is no unfinished run here to go on with.")
            return
        self.post_message(ResumeRun(self.state.run))

    def action_quickstart(self) -> None:
        self.post_message(StartQuickstart())

    async def action_settings(self) -> None:
        if self.body.current == "settings":
            self.action_chart()
            return
        form = self.query_one(SettingsForm)
        if not form.is_filled or form.preset != self._app.preset:
            await self._fill_form(form)
        self.body.current = "settings"
        self.show_all()
        self.app.call_after_refresh(form.focus_first)

    async def _fill_form(self, form: SettingsForm) -> None:
        before = PARENT_STAGE[check_stage_name(self.stage)]
        runs = reversed(self._app.store.all(before)) if before else []
        parents = [run.name for run in runs][:_PARENTS_OFFERED] if before else None
        await form.fill(self._app.preset, preset_names(), parents)

    async def preset_changed(self) -> None:
        """The app has another preset: the settings start again from it."""
        self.load_config()
        form = self.query_one(SettingsForm)
        if form.is_filled:
            await self._fill_form(form)
        self.show_all()

    @on(SettingsForm.Checked)
    def _settings_checked(self, event: SettingsForm.Checked) -> None:
        event.stop()
        self.config = event.config
        self._show_soon()

    def action_chart(self) -> None:
        if self.body.current == "chart":
            self.end_replay()
        self.show_chart()

    # ------------------------------------------------------------ commanding the run

    def _tell(self, command: Command, said: str) -> None:
        if self.replay:
            self.notify("This is a run told again: it cannot be changed. w ends it.")
            return
        if self.state is None or not self.state.is_live:
            self.notify("Nothing is training here. Press Enter to start.")
            return
        try:
            self.state.run.tell(command)
        except BbtuiError as error:
            self.app.push_screen(error_dialog(error.what, error.fix))
        else:
            self.notify(said)

    def action_pause(self) -> None:
        if self.state and self.state.is_paused:
            self._command(Resume())
        else:
            self._command(Pause())

    def action_save(self) -> None:
        self._command(SaveNow())

    def action_sample(self) -> None:
        self._command(SampleNow())

    def action_halve(self) -> None:
        if self.replay:
            self._change_speed(-1)
            return
        self._command(ScaleLearningRate(factor=0.5))

    def action_rate(self) -> None:
        self._steer("")

    def action_interval(self) -> None:
        self._steer("interval")

    def action_note(self) -> None:
        self._steer("note")

    def _steer(self, at: str) -> None:
        if self.state is None or not self.state.is_live:
            self._tell(Pause(), "")
            return
        rate = self.state.train.learning_rate if self.state.train else None
        self.app.push_screen(SteerPanel(rate, at, self.state.is_paused), self._command)

    def _command(self, command: Command | None) -> None:
        if command:
            self._tell(command, said_of(command))

    def action_detach(self) -> None:
        if self.is_own or self.starting:
            self.post_message(DetachOwnRun())
        elif self.state is None or not self.state.is_live:
            self._tell(Pause(), "")
        else:
            self.notify("It runs in a process of its own: leave the app whenever you like.")

    def action_stop(self) -> None:
        if not self.is_live:
            self._tell(Stop(), "")
            return
        name = self.state.run.short_name if self.state else self.stage
        self.app.push_screen(stop_dialog(name, self.state.step if self.state else 0), self._stop_chosen)

    def _stop_chosen(self, answer: str | None) -> None:
        if answer not in ("save", "discard"):
            return
        if self.is_own or self.starting:
            self.post_message(StopOwnRun(answer == "save", self.stage))
        else:
            self._tell(Stop(save=answer == "save"), "Stopping.")

    # ------------------------------------------------------------ looking

    def action_copy(self) -> None:
        sample = self.sample
        if sample.has_focus:
            self.app.copy_to_clipboard(sample.text)
            self.notify("Sample copied.")
            return
        if self.state is None:
            self.notify("There is no run here to copy figures of.")
            return
        self.app.copy_to_clipboard(f"{summary_of(self.state)}\n{sample.text}".strip())
        self.notify("The run's figures are copied.")
