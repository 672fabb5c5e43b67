"""What a list shows of a run, read from the end of its log: its state, its last figures."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.event_log import last_lines
from core.events import (
    Event,
    NoteAdded,
    RunContinued,
    RunEnded,
    RunPaused,
    RunStarted,
    SchedulePlanned,
    TrainMeasured,
    Validated,
    event_from_line,
)
from core.records import instant_of_line, kind_of_line

_CLOSING = (RunEnded, RunStarted, RunPaused, RunContinued)
_FIRST_LINES = 1000


@dataclass(frozen=True, slots=True)
class Summary:
    """What a list of runs shows of one. Losses are None where nothing was measured yet."""

    state: str
    """new, running, paused, completed, stopped, failed, interrupted, or the name of a signal."""
    step: int
    steps: int
    tokens: int
    train_loss: float | None
    validation_loss: float | None
    tokens_per_s: float | None
    parent: str
    started_at: str
    last_at: str
    message: str

    @property
    def is_live(self) -> bool:
        return self.state in ("running", "paused")


def summary_of(log: Path, is_held: Callable[[], bool]) -> Summary:
    """State and last figures of the run with that log.

    Args:
        is_held: asked once the log is read, whether some process trains the run.
    """
    found: dict[type[Event], Event] = {}
    settled: set[bytes] = set()
    last_at, closing, holds_to, steps = "", "", math.inf, 0
    for line in reversed(last_lines(log)):
        # Most lines are of kinds whose newest is known by then; parsing them too would take ten times as long.
        kind = kind_of_line(line)
        event = None if kind in settled else event_from_line(line)
        if event is None:
            continue
        # A note may be written long after the run's end, and makes it no newer.
        if not isinstance(event, NoteAdded):
            last_at = last_at or instant_of_line(line)
        if isinstance(event, _CLOSING):
            closing = closing or type(event).__name__
        if getattr(event, "step", -1) <= holds_to:
            found.setdefault(type(event), event)
            if isinstance(event, (SchedulePlanned, Validated, RunStarted)):
                steps = steps or event.steps
            if not isinstance(event, RunStarted):
                settled.add(kind)
        if isinstance(event, RunStarted):
            holds_to = min(holds_to, event.resumed_from_step or -1)
        if closing and steps and {TrainMeasured, Validated} <= found.keys():
            break
    return _summary(found, closing, last_at, steps, _first_start(log), is_held())


def _summary(
    found: dict[type[Event], Event],
    closing: str,
    last_at: str,
    steps: int,
    first: tuple[RunStarted, str] | None,
    is_held: bool,
) -> Summary:
    ended, train, validation = found.get(RunEnded), found.get(TrainMeasured), found.get(Validated)
    # A published curve has no training losses.
    measured = next(
        (each for each in (train, validation) if isinstance(each, TrainMeasured | Validated)), None
    )
    if is_held:
        state = "paused" if closing == "RunPaused" else "running"
    elif closing == "RunEnded" and isinstance(ended, RunEnded):
        state = ended.reason
    else:
        state = "interrupted" if first or train or RunStarted in found else "new"
    return Summary(
        state=state,
        step=measured.step if measured else 0,
        steps=steps or (first[0].steps if first else 0),
        tokens=measured.tokens if measured else 0,
        train_loss=train.loss if isinstance(train, TrainMeasured) else None,
        validation_loss=validation.loss if isinstance(validation, Validated) else None,
        tokens_per_s=train.tokens_per_s if isinstance(train, TrainMeasured) else None,
        parent=first[0].parent if first else "",
        started_at=first[1] if first else "",
        last_at=last_at,
        message=ended.message if isinstance(ended, RunEnded) and closing == "RunEnded" else "",
    )


def _first_start(log: Path) -> tuple[RunStarted, str] | None:
    """The run's first start and its instant."""
    if log.is_file():
        with log.open("rb") as lines:
            for _, line in zip(range(_FIRST_LINES), lines, strict=False):
                event = event_from_line(line)
                if isinstance(event, RunStarted):
                    return event, instant_of_line(line)
    return None
