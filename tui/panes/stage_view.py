"""What a stage's tab shows: one run, live or replayed, or what a new run would be."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.events import Resize, Show
from textual.timer import Timer
from textual.widgets import ContentSwitcher, Static

from core.config import STAGES, StageConfig, load_stage
from core.errors import BbtuiError
from core.runs import Run
from core.series import Mark, effect_of
from tui.chart import View
from tui.messages import ReplayOver, RunEvents, RunLiveness, RunRead, StageChanged
from tui.panes.stage_words import empty_words, hints_for, missing_words
from tui.run_state import RunState
from tui.shown import LOSS, Ghost, choices_of
from tui.widgets.chart_notes import ChartNotes, answers_words, effect_words, ghosts_words
from tui.widgets.control_bar import ControlBar
from tui.widgets.loss_chart import LossChart
from tui.widgets.progress_strip import ProgressStrip, figures_line
from tui.widgets.run_lines import FactsLine, LossLine, SampleBox, facts_of_config, facts_of_run
from tui.widgets.settings_form import SettingsForm
from tui.workers.follow import RunFollower
from tui.workers.replay import Replay

if TYPE_CHECKING:
    from tui.app import BbtuiApp

_REFRESHES_PER_S = 4
_ROWS_FOR_TWO_SAMPLE_LINES = 20


class StageView(Vertical, can_focus=True):
    """Follows the log of one run and keeps every line about it up to date."""

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
        self.view = View()
        self._follower: RunFollower | None = None
        self._is_reading = False
        """Whether what the shown run's log holds already has yet to come."""
        self.replay: Replay | None = None
        """Set while the shown run is told again."""
        self.ghosts: Sequence[Ghost] = ()
        """What is drawn behind the shown run."""
        self.effect_asked: Mark | None = None
        """The mark whose effect was asked for."""
        self._timer: Timer | None = None

        # Held here, since events still arrive while the app takes its widgets down.
        self.facts = FactsLine(id="facts")
        self.losses = LossLine(id="losses")
        self.body = ContentSwitcher(initial="chart", id="body")
        self.notes = ChartNotes(id="notes")
        self.chart = LossChart(id="chart")
        self.progress = ProgressStrip(id="progress")
        self.figures = Static(id="figures", markup=False)
        self.sample = SampleBox(id="sample")
        self.controls = ControlBar(stage, id="controls")

    def compose(self) -> ComposeResult:
        yield self.facts
        yield self.losses
        yield self.notes
        with self.body:
            yield self.chart
            yield SettingsForm(self.stage, self._app.store.root, id="settings")
        yield self.progress
        yield self.figures
        yield self.sample
        yield self.controls

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
        self._is_reading = True
        self._follower = RunFollower(run, self.post_message, is_own).start()
        self.show_chart()
        self.show_all()

    def tell_again(self, run: Run, speed: float) -> None:
        """Show this run, which is over, as it went, so many times as fast."""
        self.leave_run()
        self.state, self.is_own = RunState(run), False
        self.replay = Replay(speed)
        self._follower = RunFollower(run, self.post_message, replay=self.replay).start()
        self.show_chart()
        self.show_all()

    def leave_run(self) -> None:
        """Stop following the shown run."""
        self._is_reading, self.replay = False, None
        if self._follower:
            self._follower.leave()
            self._follower = None

    def forget_run(self) -> None:
        """Show no run, but what a new one would be."""
        self.leave_run()
        self.state = None
        self.show_chart()
        self.show_all()

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

    def on_run_read(self, message: RunRead) -> None:
        state = self.state
        if state is None or message.source is not self._follower:
            return
        read = message.state
        read.is_live, read.is_known = state.is_live and read.ended is None, state.is_known
        read.memory_bytes, read.disk_free_bytes = state.memory_bytes, state.disk_free_bytes
        self.state, self._is_reading = read, False
        self._take_up(had_started=False)

    def on_run_events(self, message: RunEvents) -> None:
        state = self.state
        if state is None or message.source is not self._follower:
            return
        had_started = state.started is not None
        for found in message.found:
            state.take(found)
        self._take_up(had_started)

    def on_replay_over(self, message: ReplayOver) -> None:
        if self.state and message.source is self._follower:
            self.replay = None
            self.show_all()

    def _take_up(self, had_started: bool) -> None:
        """Show what the log has told."""
        state = self.state
        if state is None:
            return
        if state.started and not state.ended and self.is_own:
            # A resumed run's log is replayed to its earlier end before the new start comes.
            self.starting, state.is_live = "", True
        if had_started:
            self._show_soon()
        else:
            self.show_all()
        if state.started and not had_started and state.is_live and self.has_focus:
            self.focus_default()

    def on_run_liveness(self, message: RunLiveness) -> None:
        state = self.state
        if state is None or message.run != state.run:
            return
        changed = state.is_live != message.is_live
        # The process that wrote the run's end may still hold its lock for a moment.
        state.is_live = message.is_live and state.ended is None
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

    @on(Show)
    @on(Resize)
    def _seen(self) -> None:
        self.show_all()

    def _show_soon(self) -> None:
        if self._timer is None:
            self._timer = self.set_timer(1 / _REFRESHES_PER_S, self.show_all)

    def show_all(self) -> None:
        """Bring every line up to date."""
        if self._timer:
            self._timer.stop()
            self._timer = None
        if not self.is_mounted or not self.is_attached:
            return
        self.post_message(StageChanged(self.stage))
        if self.region.area == 0:
            return
        state, finished, domain = self.state, self._app.finished_stages, self._app.domain
        has_run = state is not None and state.started is not None
        if state:
            state.replay_speed = self.replay.speed if self.replay else 0.0
            state.is_held = bool(self.replay and self.replay.is_held)
        is_form = self.body.current == "settings"
        planned = facts_of_config(self.config) if self.config else []
        self.facts.show(facts_of_run(state, self.is_own) if state and not is_form else planned)
        missing = "" if has_run or self.is_live else missing_words(self.stage, finished, domain)
        notice = self.starting if has_run else ""
        self.losses.show(state if has_run else None, self.view, notice)
        waiting = "Waiting for the first step." if has_run or self.is_live else ""
        if self._is_reading:
            waiting = "Reading the run's log."
        empty = self.starting or waiting or empty_words(self.stage, finished, domain)
        self._show_chart(state, empty)
        self.notes.show(self._notes(state) if has_run and not is_form else ())
        self.progress.show(state)
        has_room = self.size.height >= _ROWS_FOR_TWO_SAMPLE_LINES
        figures = figures_line(state, self.size.width - 2, 2 if has_room else 1) if state else ""
        self.figures.update(Content(figures), layout=False)
        self.figures.styles.height = 2 if len(figures) > self.size.width - 2 else 1
        self.sample.show(state.sample if state else None)
        self.sample.styles.height = 2 if self.size.height >= _ROWS_FOR_TWO_SAMPLE_LINES else 1
        # The settings are those of a new run: the shown one's figures would take room and mislead.
        self.losses.display = not is_form
        self.progress.display = has_run and not is_form
        self.figures.display = bool(figures) and not is_form
        self.sample.display = bool(state and state.sample) and not is_form
        self._show_buttons(has_run, missing)

    def _show_chart(self, state: RunState | None, empty: str) -> None:
        if state and self.view.shows not in choices_of(state.series):
            # Another run need not have what was shown of the one before.
            self.view = replace(self.view, shows=LOSS)
        self.chart.view = self.view
        self.chart.planned_tokens = state.planned_tokens if state else 0
        self.chart.show_ghosts(self.ghosts)
        self.chart.show(state.series if state else None, empty)

    def _notes(self, state: RunState | None) -> list[str]:
        """What stands between the losses and the chart, what was asked for first; one line where rows are few."""
        if state is None:
            return []
        series, told, width = state.series, self.told_mark, self.size.width - 2
        effect = effect_words(effect_of(series, told), width) if told else ""
        answers = answers_words(series, self.view.shows)
        behind = ghosts_words(self.ghosts, series, state.planned_tokens) if self.view.shows == LOSS else ""
        lines = [answers, behind, effect] if self.view.shows != LOSS else [behind, effect, answers]
        if self.effect_asked is not None:
            lines.sort(key=lambda line: line != effect)
        return [line for line in lines if line][: 3 if self.size.height >= _ROWS_FOR_TWO_SAMPLE_LINES else 1]

    @property
    def told_mark(self) -> Mark | None:
        """The mark whose effect is told: the one asked for, or the newest change made by hand."""
        marks = self.state.series.marks_by_hand if self.state else []
        if self.effect_asked in marks:
            return self.effect_asked
        return next((mark for mark in reversed(marks) if mark.kind == "change"), None)

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
        self.controls.show(names, labels, primary="" if missing else "start")
        if self.screen.focused is None and self._app.pane is self:
            self.focus_default()

    def focus_default(self) -> None:
        """Put the focus where Enter does what is most likely wanted."""
        button = self.controls.button("pause" if self.is_live else "start")
        (self if self.starting or not button.display else button).focus()

    def hints(self) -> list[tuple[str, str]]:
        """Keys and words for the footer, the most useful first."""
        if self.body.current == "settings":
            return [("escape", "chart"), ("down", "next")]
        if self.replay:
            hold = "go on" if self.replay.is_held else "hold"
            return [("w", "end"), ("space", hold), ("plus", "faster"), ("minus", "slower"), ("x", "series")]
        return [("s", "stop")] if self.starting else hints_for(self.state, self.is_live, self.is_own)

    def show_chart(self) -> None:
        """Go back from the settings to the chart."""
        if self.body.current != "chart":
            self.body.current = "chart"
            self.show_all()
            self.focus_default()
