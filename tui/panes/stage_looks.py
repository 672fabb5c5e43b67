"""How a stage's run is looked at: the chart's series, what is drawn behind it, the run told again, its film."""

from dataclasses import replace

from textual.binding import Binding, BindingType
from textual.message import Message

from core.runs import Run
from tui import chart, pace
from tui.chart import View
from tui.panes.stage_view import StageView
from tui.shown import choices_of
from tui.widgets.film import FilmScreen
from tui.widgets.run_lines import view_words
from tui.workers.ghosts import GhostChoice, ghosts_for

_REPLAY_S = 10.0

LOOKS: list[BindingType] = [
    Binding(
        "x", "series", "Next series", tooltip="Show the losses, rate, gradient, pace, memory or answers."
    ),
    Binding("l", "log_axis", "Log axis", tooltip="Switch the chart's axis between linear and logarithmic."),
    Binding("z", "zoom", "Zoom", tooltip="Show all of the curve, its latest half, or its latest fifth."),
    Binding("m", "smoothing", "Smoothing", tooltip="Smooth the curve: not, somewhat, much."),
    Binding(
        "o", "ghosts", "Ghost curves", tooltip="Draw runs before, the parent or the published run behind it."
    ),
    Binding(
        "e",
        "effect",
        "Effect since",
        tooltip="Say how steep the loss ran before and after a change.",
    ),
    Binding(
        "w",
        "watch",
        "Watch again",
        tooltip="Tell a run that is over again, from its start; w or escape ends it.",
    ),
    Binding("space", "hold", "Hold", tooltip="While a run is told again: stand still, or go on."),
    Binding(
        "plus,equals_sign", "faster", "Faster", tooltip="While a run is told again: faster; minus is slower."
    ),
    Binding("f", "film", "Film", tooltip="Show the answers to the fixed prompts, validation by validation."),
]


class StageLooks(StageView):
    """The actions behind `LOOKS`."""

    class GhostsRead(Message):
        """From the worker: what there is to draw behind a run."""

        def __init__(self, run: Run, choices: list[GhostChoice]) -> None:
            super().__init__()
            self.run = run
            self.choices = choices

    def __init__(self, stage: str, *, id: str | None = None) -> None:
        super().__init__(stage, id=id)
        self._ghosts_read: StageLooks.GhostsRead | None = None
        self._ghost_choice = ""

    # ------------------------------------------------------------ the chart

    def _look(self, view: View) -> None:
        self.view = view
        self.chart.look(view)
        self.show_all()
        words = view_words(view).partition("y: ")[2]
        self.notify(words[:1].upper() + words[1:], timeout=2)

    def action_series(self) -> None:
        choices = choices_of(self.state.series) if self.state else []
        if len(choices) < 2:
            self.notify("There is nothing else to show of this run yet.")
            return
        at = choices.index(self.view.shows) if self.view.shows in choices else -1
        self._look(replace(self.view, shows=choices[(at + 1) % len(choices)]))

    def action_log_axis(self) -> None:
        self._look(replace(self.view, is_log=not self.view.is_log))

    def action_zoom(self) -> None:
        self._look(replace(self.view, zoom=chart.next_of(chart.ZOOMS, self.view.zoom)))

    def action_smoothing(self) -> None:
        self._look(replace(self.view, smoothing=chart.next_of(chart.SMOOTHINGS, self.view.smoothing)))

    def action_effect(self) -> None:
        marks = self.state.series.marks_by_hand if self.state else []
        if not marks:
            self.notify("Nothing was changed by hand in this run: no effect to tell of.")
            return
        # What stands there already is not told a second time.
        told = self.told_mark
        self.effect_asked = marks[marks.index(told) - 1] if told in marks else marks[-1]
        self.show_all()

    # ------------------------------------------------------------ ghosts

    def show_run(self, run: Run, is_own: bool = False) -> None:
        if self.state is None or self.state.run != run:
            self._ghosts_read, self.ghosts, self._ghost_choice, self.effect_asked = None, (), "", None
        super().show_run(run, is_own)

    def action_ghosts(self) -> None:
        if self.state is None or self.state.started is None:
            self.notify("There is no run here to draw others behind.")
        elif self._ghosts_read is None:
            store, run = self._app.store, self.state.run
            self.run_worker(
                lambda: self.post_message(self.GhostsRead(run, ghosts_for(store, run))),
                name="read ghosts",
                thread=True,
                exclusive=True,
                group="ghosts",
                exit_on_error=False,
            )
        else:
            self._next_ghosts(self._ghosts_read.choices)

    def on_stage_looks_ghosts_read(self, message: GhostsRead) -> None:
        message.stop()
        if self.state and self.state.run == message.run:
            self._ghosts_read = message
            self._next_ghosts(message.choices)

    def _next_ghosts(self, choices: list[GhostChoice]) -> None:
        names = ["", *(choice.name for choice in choices)]
        self._ghost_choice = names[(names.index(self._ghost_choice) + 1) % len(names)]
        self.ghosts = next((each.ghosts for each in choices if each.name == self._ghost_choice), ())
        self.show_all()
        if not choices:
            self.notify("There is no other run to draw behind this one yet.")
        else:
            self.notify(f"Behind: {self._ghost_choice or 'nothing'}.", timeout=2)

    # ------------------------------------------------------------ the run told again

    def action_watch(self) -> None:
        state = self.state
        if self.replay:
            self.end_replay()
        elif state is None or state.started is None:
            self.notify("There is no run here to watch.")
        elif self.is_live:
            self.notify("This run is going on: you are watching it.")
        else:
            self.tell_again(state.run, pace.speed_for(state.last_at - state.first_at, _REPLAY_S))

    def end_replay(self) -> None:
        """Show the whole run again."""
        if self.replay and self.state:
            self.show_run(self.state.run)

    def action_hold(self) -> None:
        if not self.replay:
            self.notify("Nothing is being told again. w does that.")
            return
        self.replay.is_held = not self.replay.is_held
        self.show_all()

    def action_faster(self) -> None:
        self._change_speed(1)

    def _change_speed(self, steps: int) -> None:
        if not self.replay:
            self.notify("Nothing is being told again. w does that.")
            return
        self.replay.pace.speed = pace.next_speed(self.replay.speed, steps)
        self.show_all()

    # ------------------------------------------------------------ the film

    def action_film(self) -> None:
        if self.state is None or not self.state.samples:
            self.notify("No answers to the fixed prompts yet.")
            return
        self.app.push_screen(FilmScreen(lambda: self.state))
