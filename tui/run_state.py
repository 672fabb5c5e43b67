"""A run's events become what its stage's tab says about it. No widget in here."""

from core.config import StageConfig
from core.errors import BbtuiError
from core.events import (
    CheckpointSaved,
    DataPrepared,
    Event,
    Heartbeat,
    NoteAdded,
    PreparationProgressed,
    RunContinued,
    RunEnded,
    RunPaused,
    RunStarted,
    SampleDrawn,
    SchedulePlanned,
    TrainMeasured,
    Validated,
)
from core.log_columns import Columns, Logged
from core.runs import Run
from core.series import RunSeries

STATE_GLYPHS = {
    "none": "○",
    "new": "○",
    "starting": "●",
    "running": "●",
    "paused": "‖",
    "completed": "✓",
    "stopped": "◐",
    "interrupted": "◐",
    "failed": "✗",
    "replay": "▶",
}
_STEPS_BEFORE_ETA = 20
_LONG_STEP_S = 10.0
_MOST_SAMPLES = 500


def state_glyph(state: str) -> str:
    """The sign that stands beside a state's word; a signal's name counts as stopped."""
    return STATE_GLYPHS.get(state, "◐")


def thinned(samples: list[SampleDrawn]) -> list[SampleDrawn]:
    """The samples, or where they are more than can be kept those of every other step; the first and last stay."""
    if len(samples) <= _MOST_SAMPLES:
        return samples
    steps = sorted({sample.step for sample in samples})
    kept = {*steps[::2], steps[-1]}
    return [sample for sample in samples if sample.step in kept][-_MOST_SAMPLES:]


class RunState:
    """What is known of one run, fed event by event; feeding the same log gives the same state."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.series = RunSeries()
        self.started: RunStarted | None = None
        self.preparation: PreparationProgressed | None = None
        self.data: DataPrepared | None = None
        self.train: TrainMeasured | None = None
        self.validated: Validated | None = None
        self.validated_before: Validated | None = None
        self.sample: SampleDrawn | None = None
        self.samples: list[SampleDrawn] = []
        """All of them, thinned where they are too many."""
        self.ended: RunEnded | None = None
        self.heartbeat: Heartbeat | None = None
        self.checkpoint_step = 0
        self.is_paused = False
        self.pause_reason = ""
        """What is in the way of a run that paused by itself."""
        self.is_live = False
        self.is_known = False
        """Whether anyone has looked if the run is live; until then its state is not claimed."""
        self.memory_bytes = 0
        self.disk_free_bytes = 0
        self.replay_speed = 0.0
        """Times real time where the run is told again; 0 elsewhere."""
        self.is_held = False
        """Whether the telling stands still."""
        self.first_at = 0.0
        """Instant of the oldest event, in seconds since 1970."""
        self._planned_steps = 0
        """The last step where the schedule was planned anew since the start; 0 where it was not."""
        self._started_at = 0.0
        self._measuring_since = 0.0
        self._measured_at = 0.0
        self._beat_at = 0.0
        self._step_s = 0.0
        """What the newest step took, pauses left out; 0 where unknown."""
        self._steps_measured = 0
        self._paused_at = 0.0
        self._paused_s = 0.0
        self.last_at = 0.0
        """Instant of the newest event, in seconds since 1970."""

    @property
    def config(self) -> StageConfig | None:
        """The run's configuration, or None where it cannot be read any more."""
        try:
            return self.run.config
        except BbtuiError:
            return None

    def take(self, found: Columns | Logged) -> None:
        """Take in what one read of the log brought; the same as feeding its events one by one."""
        if isinstance(found, Logged):
            if found.event:
                self.feed(found.event, found.at)
            return
        self.series.feed_columns(found)
        # Of many steps in a row the first says since when, the last two say how far and how fast.
        places = range(len(found)) if len(found) < 3 else (0, -2, -1)
        for place in places:
            self._note(found.event(place), found.at_of(place))
        if found.kind is TrainMeasured:
            self._steps_measured += len(found) - len(places)
        self.last_at = max(self.last_at, found.latest_at)
        self._begin(found.earliest_at)

    def feed(self, event: Event, at: float = 0.0) -> None:
        """Take one event in; `at` is its instant in seconds since 1970, 0 if unknown."""
        self.series.feed(event)
        self._note(event, at)

    def _note(self, event: Event, at: float) -> None:
        # A note may be written long after the run's end.
        if not isinstance(event, NoteAdded):
            self.last_at = max(self.last_at, at)
        self._begin(at)
        match event:
            case RunStarted():
                self._start(event, at)
            case PreparationProgressed():
                self.preparation = event
            case DataPrepared():
                self.data, self.preparation = event, None
            case TrainMeasured():
                self._measure(event, at)
            case Heartbeat():
                self.heartbeat, self._beat_at = event, at
            case Validated():
                self.validated_before, self.validated = self.validated, event
            case SampleDrawn():
                self.sample = event
                self.samples = thinned([*self.samples, event])
            case SchedulePlanned():
                self._planned_steps = event.steps
            case CheckpointSaved():
                self.checkpoint_step = event.step
            case RunPaused():
                if not self.is_paused:
                    self.is_paused, self._paused_at = True, at
                self.pause_reason = event.reason
            case RunContinued():
                self._continue(at)
            case RunEnded():
                self._continue(at)
                self.ended, self.is_live = event, False
            case _:
                pass

    def _begin(self, at: float) -> None:
        self.first_at = min(self.first_at, at) if self.first_at and at else self.first_at or at

    def _start(self, event: RunStarted, at: float) -> None:
        self.started, self.ended, self.is_paused = event, None, False
        self.heartbeat, self._step_s, self._measured_at = None, 0.0, at
        self._planned_steps = 0
        self._started_at, self._measuring_since = at, 0.0
        self._steps_measured, self._paused_s, self._paused_at = 0, 0.0, 0.0
        self.checkpoint_step = event.resumed_from_step
        if self.train and self.train.step > event.resumed_from_step:
            self.train = None
        self.samples = [sample for sample in self.samples if sample.step <= (event.resumed_from_step or -1)]
        for name in ("validated", "validated_before"):
            held = getattr(self, name)
            if held and held.step > event.resumed_from_step:
                setattr(self, name, None)

    def _measure(self, event: TrainMeasured, at: float) -> None:
        if self.train and event.tokens_per_s > 0:
            self._step_s = (event.tokens - self.train.tokens) / event.tokens_per_s
        self.train, self.preparation, self._measured_at = event, None, at
        self._steps_measured += 1
        if self._steps_measured == 1:
            self._measuring_since = at
            self._paused_s = 0.0

    def _continue(self, at: float) -> None:
        if self.is_paused and self._paused_at and at:
            self._paused_s += max(0.0, at - self._paused_at)
        self.is_paused = False

    # ------------------------------------------------------------ what the screen asks

    @property
    def state(self) -> str:
        """new, running, paused, completed, stopped, failed, interrupted, replay, or a signal's name."""
        if self.replay_speed:
            return "replay"
        if self.is_live:
            return "paused" if self.is_paused else "running"
        if self.ended:
            return self.ended.reason
        return "interrupted" if self.started and self.is_known else "new"

    @property
    def step(self) -> int:
        if self.train:
            return self.train.step
        # A published curve has no training losses.
        validated = self.series.validation.steps[-1] if self.series.validation.steps else 0
        return max(validated, self.started.resumed_from_step if self.started else 0)

    @property
    def steps(self) -> int:
        return self._planned_steps or (self.started.steps if self.started else 0)

    @property
    def planned_tokens(self) -> int:
        """About how many tokens the run will have been fed at its last step; 0 before the first."""
        if not self.step or not self.steps:
            return 0
        tokens = self.series.tokens_now
        return round(tokens / self.step * max(self.steps, self.step))

    @property
    def within_step(self) -> tuple[int, int] | None:
        """Micro-batches done of all those of the step being made, where it takes long; None elsewhere."""
        beat = self.heartbeat
        if (
            not self.is_live
            or self.is_paused
            or beat is None
            or not beat.micro_batches
            or beat.step != self.step
        ):
            return None
        is_long = max(self._step_s, self._beat_at - self._measured_at) > _LONG_STEP_S
        return (beat.micro_batches_done, beat.micro_batches) if is_long else None

    @property
    def can_resume(self) -> bool:
        """Whether the run ended short of its last step."""
        return not self.is_live and bool(self.started) and self.state not in ("completed", "replay")

    def elapsed_s(self, now: float) -> float | None:
        """Seconds since this process began with the run, pauses included; None where unknown."""
        if self.ended:
            return self.ended.elapsed_s
        if not self._started_at:
            return None
        return max(0.0, (now if self.is_live else self.last_at) - self._started_at)

    def remaining_s(self, now: float) -> float | None:
        """Seconds to the last step at the pace so far; None before 20 steps, and when it is not running."""
        done = self._steps_measured - 1
        if not self.is_live or done < _STEPS_BEFORE_ETA or not self._measuring_since or not self.steps:
            return None
        until = (
            self._paused_at if self.is_paused else max(self._measured_at, min(now, self._measured_at + 5.0))
        )
        spent_s = until - self._measuring_since - self._paused_s
        return max(0.0, spent_s / done * (self.steps - self.step))

    def checkpoint_in(self) -> int | None:
        """Steps to the next checkpoint; the last step always makes one."""
        config = self.config
        if not self.is_live or not config:
            return None
        every = config.checkpoint_every
        due = (self.step // every + 1) * every
        return max(0, (min(due, self.steps) if self.steps else due) - self.step)
