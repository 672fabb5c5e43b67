"""A stage's tab: its settings, its run as a curve with figures, the keys that command it. Used four times."""

from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.events import Resize, Show
from textual.timer import Timer
from textual.widgets import Button, ContentSwitcher, Static

from core.config import PARENT_STAGE, STAGES, StageConfig, check_stage_name, load_stage, preset_names
from core.errors import BbtuiError
from core.events import Command, Pause, Resume, SampleNow, SaveNow, ScaleLearningRate, SetLearningRate, Stop
from core.runs import Run
from core.series import factor_text
from tui import chart
from tui.chart import View
from tui.figures import rate_text
from tui.messages import (
    ResumeRun,
    RunEvents,
    RunLiveness,
    StageChanged,
    StartQuickstart,
    StartStage,
    StopOwnRun,
)
from tui.panes.stage_words import empty_words, hints_for, missing_words
from tui.run_state import RunState
from tui.widgets.control_bar import ControlBar
from tui.widgets.dialogs import RatePanel, error_dialog, stop_dialog
from tui.widgets.loss_chart import LossChart
from tui.widgets.progress_strip import ProgressStrip, figures_line
from tui.widgets.run_lines import (
    FactsLine,
    LossLine,
    SampleBox,
    facts_of_config,
    facts_of_run,
    summary_of,
    view_words,
)
from tui.widgets.settings_form import SettingsForm
from tui.workers.follow import RunFollower

if TYPE_CHECKING:
    from tui.app import BbtuiApp

_REFRESHES_PER_S = 4
_PARENTS_OFFERED = 30


class StagePane(Vertical, can_focus=True):
    """One stage: what a new run would be, or the run that is shown, live or replayed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "start", "Start", tooltip="Start a new run of this stage with these settings."),
        Binding("R", "resume", "Resume", tooltip="Go on with the shown run from its last checkpoint."),
        Binding("S", "settings", "Settings", tooltip="Show the settings of a new run, or the chart again."),
        Binding("p", "pause", "Pause or go on", tooltip="Pause the run after this step, or let it go on."),
        Binding("s", "stop", "Stop", tooltip="Stop the run, with or without a checkpoint."),
        Binding("r", "rate", "Rate", tooltip="Change the learning rate by a factor or to a value."),
        Binding("minus,left_square_bracket", "halve", "Halve rate", tooltip="Halve the rate at once."),
        Binding("c", "save", "Checkpoint", tooltip="Write a checkpoint now."),
        Binding("g", "sample", "Sample", tooltip="Let the model write a sample now."),
        Binding("l", "log_axis", "Log axis", tooltip="Switch the loss axis between linear and logarithmic."),
        Binding("z", "zoom", "Zoom", tooltip="Show all of the curve, its latest half, or its latest fifth."),
        Binding("m", "smoothing", "Smoothing", tooltip="Smooth the training loss: not, somewhat, much."),
        Binding("y", "copy", "Copy", tooltip="Copy the sample, or the run's figures."),
        Binding("escape", "chart", "Chart", show=False, tooltip="Go back from the settings to the chart."),
    ]

    def __init__(self, stage: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.stage = stage
        self.state: RunState | None = None
        self.is_own = False
        """Whether this app trains the shown run."""
        self.starting = ""
        """What is being waited for between the start key and the run's first event."""
        self.config: StageConfig | None = None
        """What a new run would be; None where the settings are wrong."""
        self._view = View()
        self._follower: RunFollower | None = None
        self._timer: Timer | None = None

    def compose(self) -> ComposeResult:
        yield FactsLine(id="facts")
        yield LossLine(id="losses")
        with ContentSwitcher(initial="chart", id="body"):
            yield LossChart(id="chart")
            yield SettingsForm(self.stage, self._app.store.root, id="settings")
        yield ProgressStrip(id="progress")
        yield Static(id="figures", markup=False)
        yield SampleBox(id="sample")
        yield ControlBar(self.stage, id="controls")

    def on_mount(self) -> None:
        self.load_config()
        self.show_all()

    def on_unmount(self) -> None:
        self.leave_run()

    @property
    def _app(self) -> "BbtuiApp":
        return cast("BbtuiApp", self.app)

    @property
    def is_live(self) -> bool:
        """Whether a run goes on here, or is about to."""
        return bool(self.starting) or bool(self.state and self.state.is_live)

    @property
    def word(self) -> str:
        """The state of what is shown: none, starting, or the run's own."""
        if self.starting:
            return "starting"
        return self.state.state if self.state else "none"

    # ------------------------------------------------------------ which run is shown

    def show_run(self, run: Run, is_own: bool = False) -> None:
        """Show this run from the beginning of its log, and follow it as long as it lives."""
        self.leave_run()
        self.state, self.is_own = RunState(run), is_own
        self.state.is_live = is_own
        self._follower = RunFollower(run, self.post_message, is_own).start()
        self.action_chart()
        self.show_all()

    def leave_run(self) -> None:
        """Stop following the shown run."""
        if self._follower:
            self._follower.leave()
            self._follower = None

    def own_run_ended(self) -> None:
        """The training in this app is over; the rest of its log is still read."""
        self.starting, self.is_own = "", False
        if self._follower:
            self._follower.finish()
        if self.state:
            self.state.is_live, self.state.is_known = False, True
        self.show_all()

    def is_following(self, run: Run) -> bool:
        """Whether this run is shown and its log is being read."""
        return bool(self.state and self.state.run == run and self._follower and self._follower.is_following)

    def on_run_events(self, message: RunEvents) -> None:
        state = self.state
        if state is None or message.run != state.run:
            return
        had_started = state.started is not None
        for event, at in zip(message.events, message.instants, strict=True):
            state.feed(event, at)
        if state.started and not state.ended:
            # A resumed run's log is replayed to its earlier end before the new start comes.
            self.starting = ""
            state.is_live = state.is_live or self.is_own
        self._show_soon()
        if not had_started and state.is_live and self.has_focus:
            self.focus_default()

    def on_run_liveness(self, message: RunLiveness) -> None:
        state = self.state
        if state is None or message.run != state.run:
            return
        changed = state.is_live != message.is_live
        # An own run's end is told by its worker; until then its lock may not be taken yet.
        state.is_live = message.is_live and not (self.is_own and state.ended is not None)
        state.is_known = True
        state.memory_bytes, state.disk_free_bytes = message.memory_bytes, message.disk_free_bytes
        if changed:
            self.show_all()
        else:
            self._show_soon()

    # ------------------------------------------------------------ showing

    def load_config(self) -> None:
        """Read what a new run of the app's preset would be."""
        try:
            self.config = load_stage(self._app.preset, self.stage, self._app.store.root)
        except BbtuiError:
            self.config = None

    def on_show(self, _event: Show) -> None:
        self.show_all()

    def on_resize(self, _event: Resize) -> None:
        self.show_all()

    def _show_soon(self) -> None:
        if self._timer is None:
            self._timer = self.set_timer(1 / _REFRESHES_PER_S, self.show_all)

    def show_all(self) -> None:
        """Bring every line up to date."""
        if self._timer:
            self._timer.stop()
            self._timer = None
        if not self.is_attached or not self.query("#button-rate"):
            return
        self.post_message(StageChanged(self.stage))
        if self.region.area == 0:
            return
        state, finished, domain = self.state, self._app.finished_stages, self._app.domain
        has_run = state is not None and state.started is not None
        facts = (
            facts_of_run(state, self.is_own) if state else facts_of_config(self.config) if self.config else []
        )
        self.query_one(FactsLine).show(facts)
        missing = "" if has_run or self.is_live else missing_words(self.stage, finished, domain)
        self.query_one(LossLine).show(state if has_run else None, self._view, self.starting)
        empty = self.starting or empty_words(self.stage, finished, domain)
        self.query_one(LossChart).show(
            state.series if state else None, "Waiting for the first step." if has_run else empty
        )
        self.query_one(ProgressStrip).show(state)
        figures = figures_line(state, self.size.width) if state else ""
        self.query_one("#figures", Static).update(Content(figures))
        self.query_one(SampleBox).show(state.sample if state else None)
        self.query_one("#progress").display = has_run
        self.query_one("#figures").display = bool(figures)
        self._show_buttons(has_run, missing)

    def _show_buttons(self, has_run: bool, missing: str) -> None:
        state = self.state
        if self.starting:
            names = {"stop"}
        elif self.is_live:
            names = {"pause", "stop", "rate"}
        else:
            names = {"start", "settings"}
            if state and state.can_resume:
                names.add("resume")
            if self.stage == STAGES[0] and not has_run:
                names.add("quickstart")
        labels = {"start": "Start new"} if has_run else {}
        if state and state.is_paused:
            labels["pause"] = "Go on"
        self.query_one(ControlBar).show(names, labels, primary="" if missing else "start")
        if self.screen.focused is None and self._app.pane is self:
            self.focus_default()

    def focus_default(self) -> None:
        """Put the focus where Enter does what is most likely wanted."""
        button = self.query_one(ControlBar).button("pause" if self.is_live else "start")
        (self if self.starting or not button.display else button).focus()

    def hints(self) -> list[tuple[str, str]]:
        """Keys and words for the footer, the most useful first."""
        if self.query_one("#body", ContentSwitcher).current == "settings":
            return [("escape", "chart"), ("down", "next")]
        return hints_for(self.state, self.is_live)

    # ------------------------------------------------------------ starting

    @on(Button.Pressed)
    async def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        await self.run_action(event.button.name or "copy")

    def action_start(self) -> None:
        if self.is_live:
            self.notify("A run of this stage is going on. Stop it first: s.")
            return
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
        self.post_message(StartStage(self.stage, self._app.preset, chosen or None, form.overrides))

    def action_resume(self) -> None:
        if self.is_live or self.state is None or not self.state.can_resume:
            self.notify("There is no unfinished run here to go on with.")
            return
        self.post_message(ResumeRun(self.state.run))

    def action_quickstart(self) -> None:
        self.post_message(StartQuickstart())

    async def action_settings(self) -> None:
        body = self.query_one("#body", ContentSwitcher)
        if body.current == "settings":
            self.action_chart()
            return
        form = self.query_one(SettingsForm)
        if not form.is_filled or form.preset != self._app.preset:
            await self._fill_form(form)
        body.current = "settings"
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
        body = self.query_one("#body", ContentSwitcher)
        if body.current != "chart":
            body.current = "chart"
            self.focus_default()

    # ------------------------------------------------------------ commanding the run

    def _tell(self, command: Command, said: str) -> None:
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
            self._tell(Resume(), "Going on.")
        else:
            self._tell(Pause(), "Pausing after this step.")

    def action_save(self) -> None:
        self._tell(SaveNow(), "A checkpoint will be written after this step.")

    def action_sample(self) -> None:
        self._tell(SampleNow(), "A sample will be drawn after this step.")

    def action_halve(self) -> None:
        self._tell(ScaleLearningRate(factor=0.5), "Rate ×½ from the next step on.")

    def action_rate(self) -> None:
        if self.state is None or not self.state.is_live:
            self._tell(Pause(), "")
            return
        rate = self.state.train.learning_rate if self.state.train else None
        self.app.push_screen(RatePanel(rate), self._rate_chosen)

    def _rate_chosen(self, command: Command | None) -> None:
        if isinstance(command, ScaleLearningRate):
            self._tell(command, f"Rate {factor_text(command.factor)} from the next step on.")
        elif isinstance(command, SetLearningRate):
            self._tell(command, f"Rate {rate_text(command.learning_rate)} from the next step on.")

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
            self.post_message(StopOwnRun(save=answer == "save"))
        else:
            self._tell(Stop(save=answer == "save"), "Stopping.")

    # ------------------------------------------------------------ looking

    def _look(self, view: View) -> None:
        self._view = view
        self.query_one(LossChart).look(view)
        self.show_all()
        self.notify(view_words(view).partition("y: ")[2].capitalize())

    def action_log_axis(self) -> None:
        self._look(View(not self._view.is_log, self._view.zoom, self._view.smoothing))

    def action_zoom(self) -> None:
        self._look(View(self._view.is_log, chart.next_of(chart.ZOOMS, self._view.zoom), self._view.smoothing))

    def action_smoothing(self) -> None:
        self._look(
            View(self._view.is_log, self._view.zoom, chart.next_of(chart.SMOOTHINGS, self._view.smoothing))
        )

    def action_copy(self) -> None:
        sample = self.query_one(SampleBox)
        if sample.has_focus:
            self.app.copy_to_clipboard(sample.text)
            self.notify("Sample copied.")
            return
        if self.state is None:
            self.notify("There is no run here to copy figures of.")
            return
        self.app.copy_to_clipboard(f"{summary_of(self.state)}\n{sample.text}".strip())
        self.notify("The run's figures are copied.")
