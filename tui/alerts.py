"""When a run gives cause for word: it ended, fell silent, died, met what is no number, or the disk runs low.

No widget, no thread and no clock of its own in here: whoever watches runs feeds events and the time.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from core.events import (
    DETACHED,
    CheckpointSaved,
    CheckpointSetAside,
    Event,
    NonFiniteMet,
    RunContinued,
    RunEnded,
    RunPaused,
    RunStarted,
    TrainMeasured,
    Validated,
)
from tui.figures import bytes_text, loss_text

ENDED, SILENT, DIED, NON_FINITE, DISK, CHECKPOINT = (
    "ended",
    "silent",
    "died",
    "non-finite",
    "disk",
    "checkpoint",
)
TEST = "test"
KINDS = {
    ENDED: "A run ended",
    SILENT: "Silent for 60 s",
    DIED: "Its process died",
    NON_FINITE: "Loss not finite",
    DISK: "Disk low",
    CHECKPOINT: "Checkpoint damaged",
}
SILENCE_S = 60.0
SILENCE_BEFORE_FIRST_STEP_S = 300.0
"""Data is fetched, a vocabulary learned, a model compiled: none of that writes a sign of life."""
LEAST_FREE_BYTES = 1_000_000_000
_CHECKPOINTS_AHEAD = 2
# Weights and two moments, four bytes each; only asked before a first checkpoint tells the true size.
_BYTES_PER_PARAMETER = 12
_SOUND_STEPS = 10
"""Steps in a row after which another non-finite one is news again."""


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that the user should hear of, also when looking elsewhere."""

    kind: str
    run: str
    """The run's short name; empty where it concerns no single one."""
    title: str
    text: str
    step: int = 0
    loss: float | None = None
    """The last validation loss; None where none was measured, or where it is no number."""
    is_bad: bool = True
    """Whether it calls for a hand."""
    is_own: bool = False
    """Whether the run is trained by this process."""
    is_told: bool = False
    """Whether another process, the run's own, runs its user's command for it."""


class RunAlerts:
    """What one run gives cause for, each once: per end, per silence, per row of bad steps.

    Args:
        run: its short name.
        now: seconds of a clock that only goes forward; so in every method.
    """

    def __init__(self, run: str, now: float) -> None:
        self.run = run
        self.is_over = False
        """Whether the process has said that it is done with the run."""
        self.process_id = 0
        self._heard_at = now
        self._is_silent = False
        self._is_paused = False
        self._has_stepped = False
        """Whether this process has made a step of the run."""
        self._sound_steps = _SOUND_STEPS
        self._step = 0
        self._steps = 0
        self._loss: float | None = None
        self._checkpoint_bytes = 0

    @property
    def bytes_ahead(self) -> int:
        """What the next two checkpoints will take, as far as it can be told."""
        return _CHECKPOINTS_AHEAD * self._checkpoint_bytes

    def recall(self, events: Iterable[Event]) -> None:
        """Take in what happened before anyone listened: it is known then, and no news."""
        for event in events:
            self._feed(event)

    def take(self, events: Iterable[Event], now: float) -> list[Alert]:
        """What these new events give cause for."""
        alerts: list[Alert] = []
        for event in events:
            self._heard_at, self._is_silent = now, False
            alert = self._feed(event)
            if alert:
                alerts.append(alert)
        return alerts

    def tick(self, now: float) -> list[Alert]:
        """What the mere time gives cause for, in a run that lives. A paused run may be silent."""
        limit_s = SILENCE_S if self._has_stepped else SILENCE_BEFORE_FIRST_STEP_S
        if self._is_silent or self._is_paused or self.is_over or now - self._heard_at < limit_s:
            return []
        self._is_silent = True
        where = f"since step {self._step}" if self._has_stepped else "yet of a step"
        text = f"Its process lives, but has written nothing {where}."
        return [self._alert(SILENT, f"no sign of life for {now - self._heard_at:.0f} s", text)]

    def gone(self) -> list[Alert]:
        """No process holds the run any more, and its log is read to the end."""
        if self.is_over:
            return []
        self.is_over = True
        at = f"at step {self._step}: R on its tab goes on with it" if self._step else "before its first step"
        text = f"Its process is gone, {at}."
        return [self._alert(DIED, "died", text)]

    def _feed(self, event: Event) -> Alert | None:
        match event:
            case RunStarted():
                self._start(event)
            case TrainMeasured():
                self._step, self._has_stepped = event.step, True
                self._sound_steps += 1
            case Validated():
                self._loss, self._steps = event.loss, event.steps or self._steps
            case CheckpointSaved():
                self._checkpoint_bytes = event.bytes_written
            case RunPaused():
                self._is_paused = True
                if event.reason:
                    text = f"{event.reason.rstrip('.')}. Free some space; p on its tab lets it go on."
                    return self._alert(DISK, "is paused", text)
            case RunContinued():
                self._is_paused = False
            case NonFiniteMet():
                return self._non_finite(event)
            case CheckpointSetAside():
                return self._alert(
                    CHECKPOINT, "a checkpoint is damaged", f"{event.path} was set aside: {event.reason}"
                )
            case RunEnded():
                return self._end(event)
            case _:
                pass
        return None

    def _start(self, event: RunStarted) -> None:
        self.is_over = self._is_paused = self._has_stepped = False
        self.process_id = event.process_id
        self._step, self._steps = event.resumed_from_step, event.steps
        self._sound_steps = _SOUND_STEPS
        self._checkpoint_bytes = self._checkpoint_bytes or event.parameters * _BYTES_PER_PARAMETER

    def _non_finite(self, event: NonFiniteMet) -> Alert | None:
        is_news, self._sound_steps = self._sound_steps >= _SOUND_STEPS, 0
        self._step = max(self._step, event.step)
        text = f"The {event.what} of step {event.step} is not a finite number."
        return self._alert(NON_FINITE, "not a finite number", text) if is_news else None

    def _end(self, event: RunEnded) -> Alert | None:
        self.is_over, self._step = True, event.step
        if event.reason == DETACHED:
            return None
        done = {"completed": "is finished", "failed": "failed"}.get(event.reason, f"ended: {event.reason}")
        of = f" of {self._steps}" if self._steps else ""
        loss = f", validation loss {loss_text(self._loss)}" if self._loss is not None else ""
        failure = f": {event.message}" if event.message else ""
        text = f"Step {event.step}{of}{loss}{failure}".rstrip(".") + "."
        return self._alert(ENDED, done, text, is_bad=event.reason == "failed")

    def _alert(self, kind: str, title: str, text: str, is_bad: bool = True) -> Alert:
        loss = self._loss if self._loss is not None and math.isfinite(self._loss) else None
        return Alert(kind, self.run, f"{self.run} {title}", text, self._step, loss, is_bad)


class DiskAlerts:
    """Says once that the disk runs low, and again only after there was room in between."""

    def __init__(self) -> None:
        self._is_low = False

    def take(self, free_bytes: int, bytes_ahead: int) -> list[Alert]:
        """What this much free space gives cause for, where the live runs are about to write so much."""
        was_low = self._is_low
        self._is_low = free_bytes < max(LEAST_FREE_BYTES, bytes_ahead)
        if was_low or not self._is_low:
            return []
        ahead = f"The next two checkpoints need {bytes_text(bytes_ahead)}. " if bytes_ahead else ""
        title = f"Disk low: {bytes_text(free_bytes)} left"
        return [Alert(DISK, "", title, f"{ahead}Free some space; the Runs tab says what takes it.")]
