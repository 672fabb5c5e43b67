"""What the command line prints: plain lines, no cursor tricks, so that logs and pipes read well."""

import math
import sys
import time
from collections.abc import Iterator
from typing import Any

from core.config import stage_title
from core.event_log import Follower
from core.events import (
    AnswersScored,
    CheckpointSetAside,
    DataPrepared,
    Event,
    Heartbeat,
    LearningRateChanged,
    NonFiniteMet,
    NoteAdded,
    PreparationProgressed,
    RunEnded,
    RunPaused,
    RunStarted,
    SampleDrawn,
    SchedulePlanned,
    TrainMeasured,
    Validated,
    ValidationIntervalChanged,
    Warned,
)
from core.log_columns import Logged
from core.runs import Run
from core.series import rate_change, rate_range
from tui.clean import clean, clean_line
from tui.pace import Pace


class JsonLines:
    """Each event as a JSON line on stdout."""

    def take(self, event: Event) -> None:
        print(event.to_line(), flush=True)


class Progress:
    """Events in words: a line per validation, and one for whatever else matters."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._last: TrainMeasured | None = None
        self._started: RunStarted | None = None
        self._first_at: tuple[int, float] | None = None
        self._prepared_said_at = 0.0

    def take(self, event: Event) -> None:
        """Print the event's line, if it has one."""
        for line in self._lines(event):
            print(line, flush=True)

    def _lines(self, event: Event) -> Iterator[str]:
        match event:
            case PreparationProgressed() if time.monotonic() - self._prepared_said_at > 2:
                self._prepared_said_at = time.monotonic()
                yield f"  preparing {clean_line(event.what, 40)}: {event.documents:,} items, {event.tokens:,} tokens"
            case RunStarted():
                self._started = event
                title = stage_title(event.stage, self._run.config.domain)
                resumed = f", resumed from step {event.resumed_from_step}" if event.resumed_from_step else ""
                size = f"{event.parameters / 1e6:.1f}M parameters"
                yield f"{title}  {event.run}  {size}  {event.device} {event.precision}"
                yield f"  {event.steps} steps{resumed}" + (f"  from {event.parent}" if event.parent else "")
            case DataPrepared():
                yield (
                    f"  data: {event.train_tokens:,} tokens to learn from, {event.validation_tokens:,} to validate on; "
                    f"{event.epochs:.1f} epochs" + (f"; {event.skipped} skipped" if event.skipped else "")
                )
            case TrainMeasured():
                self._last = event
                self._first_at = self._first_at or (event.step, time.monotonic())
            case Validated():
                yield self._validated(event)
            case AnswersScored():
                name = clean_line(event.questions, 40)
                yield f"  right answers {event.mean_probability:.4f}  {event.items} questions of {name}"
            case SampleDrawn():
                yield f"  › {clean_line(event.prompt, 60)} » {clean_line(event.text, 200)}"
            case LearningRateChanged():
                rates = f": {event.before:.3g} -> {event.after:.3g}" if math.isfinite(event.before) else ""
                yield f"  step {event.step}: learning {rate_change(event)}{rates}"
            case SchedulePlanned():
                yield (
                    f"  step {event.step}: rate planned anew: {event.shape} {rate_range(event)}".rstrip()
                    + f" until step {event.until_step}; the run ends at step {event.steps}"
                )
            case ValidationIntervalChanged():
                yield f"  step {event.step}: validation every {event.after} steps, was {event.before}"
            case NoteAdded():
                yield f"  step {event.step}: note: {clean_line(event.text, 200)}"
            case NonFiniteMet():
                yield f"  step {event.step}: {event.what} is not finite; no update was made"
            case CheckpointSetAside():
                yield f"  {event.path} was set aside: {clean_line(event.reason, 200)}"
            case Warned():
                yield f"  {clean_line(event.message, 300)}"
            case RunPaused():
                why = f": {clean_line(event.reason, 300)} p in the app lets it go on." if event.reason else ""
                yield f"  paused at step {event.step}{why}"
            case RunEnded():
                message = f": {clean_line(event.message, 300)}" if event.message else ""
                yield f"  {event.reason} at step {event.step} after {clock(event.elapsed_s)}{message}"

    def _validated(self, event: Validated) -> str:
        steps = self._started.steps if self._started else 0
        line = f"  step {event.step:>5}/{steps}  validation {event.loss:.4f}"
        if math.isfinite(event.bits_per_byte):
            line += f"  {event.bits_per_byte:.3f} bits/byte"
        if self._last and self._last.step == event.step:
            line += f"  train {self._last.loss:.4f}  rate {self._last.learning_rate:.2e}"
            line += f"  {self._last.tokens_per_s:,.0f} tokens/s"
            if self._first_at and event.step > self._first_at[0]:
                pace_s = (time.monotonic() - self._first_at[1]) / (event.step - self._first_at[0])
                line += f"  ETA {clock(pace_s * (steps - event.step))}"
        return line


class Counter:
    """How far an evaluation is, on one stderr line of a terminal; nothing where stderr is a file."""

    def __init__(self, quiet: bool) -> None:
        self._shows = not quiet and sys.stderr.isatty()

    def take(self, event: Any) -> None:
        if self._shows:
            print(
                f"\r  {clean_line(event.what, 40)}: {event.done}/{event.total}  ",
                end="",
                file=sys.stderr,
                flush=True,
            )

    def done(self) -> None:
        if self._shows:
            print("\r" + " " * 70 + "\r", end="", file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """A span as 1:05 or 2:01:05."""
    whole = max(0, round(seconds)) if math.isfinite(seconds) else 0
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def paced(run: Run, speed: float) -> Iterator[Event]:
    """The run's events that hold, as fast as they came, `speed` times over; 0 waits for none."""
    if not speed or not run.events_file.is_file():
        yield from run.present_events()
        return
    pace = Pace(speed)
    for event, at in _with_instants(run):
        # One that waits at each sign of life would replay the longest steps at their full length.
        if event is None or isinstance(event, Heartbeat):
            continue
        time.sleep(pace.wait_s(at))
        yield event


def _with_instants(run: Run) -> Iterator[tuple[Event | None, float]]:
    for found in Follower(run.events_file).read():
        if isinstance(found, Logged):
            yield found.event, found.at
        elif found.kind is not Heartbeat:
            yield from ((found.event(place), found.at_of(place)) for place in range(len(found)))


# ---------------------------------------------------------------- comparison


def print_report(report: Any, domain: str) -> None:
    from core.evals.report import report_lines

    for line in report_lines(report, domain):
        print(clean(line))


def print_answer(label: str, title: str, text: str, ended: Any) -> None:
    note = f"  ({clean_line(ended.note, 80)})" if ended.note else ""
    print(f"{label.upper()}  {title}  {ended.tokens} tokens{note}")
    print("  " + clean(text).strip().replace("\n", "\n  ") + "\n")


def answer_row(voice: Any, text: str, ended: Any) -> dict[str, Any]:
    """One model's answer as plain JSON values."""
    return {
        "run": voice.run.name,
        "step": voice.step,
        "sha256": voice.sha256,
        "precision": voice.precision,
        "text": text,
        "tokens": ended.tokens,
        "reason": ended.reason,
        "note": ended.note,
    }
