"""Everything that happens in a run, and everything a run can be told, each to and from one JSON line.

Events are past tense and stand in `events.jsonl`; commands are imperative and stand in `commands.jsonl`.
A line holds the kind (`event` or `command`), `at` (ISO time, UTC) and the fields. Floats are written with the
shortest text that reads back to the same bits; the three values JSON lacks are written as "nan", "inf", "-inf".
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, ClassVar, get_args, get_type_hints

_SPECIAL_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What events and commands have in common: one line of JSON each."""

    kind_key: ClassVar[str]

    def to_line(self, at: str | None = None) -> str:
        """The record as one JSON line, without the newline."""
        return json.dumps(
            self.to_row(at=at or now()), ensure_ascii=False, allow_nan=False, separators=(",", ":")
        )

    def to_row(self, **more: str) -> dict[str, Any]:
        """The record as plain JSON values: its kind, `more`, its fields."""
        row: dict[str, Any] = {self.kind_key: type(self).__name__, **more}
        for field in fields(self):
            row[field.name] = _encode(getattr(self, field.name))
        return row


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Record):
    kind_key: ClassVar[str] = "event"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command(Record):
    kind_key: ClassVar[str] = "command"


# ---------------------------------------------------------------- events


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """A process began, or went on with, this run."""

    run: str
    stage: str
    parent: str
    """`stage/id@step` of the checkpoint that the weights come from; empty for random weights."""
    parameters: int
    resumed_from_step: int
    """0 for a run from its beginning. Readers drop earlier lines of later steps."""
    steps: int
    device: str
    precision: str
    process_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparationProgressed(Event):
    """Documents are being turned into token shards, before the first step."""

    what: str
    documents: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPrepared(Event):
    """The data stands ready. Counts are of the whole data set, not of what the run will see."""

    source: str
    train_tokens: int
    validation_tokens: int
    train_items: int
    """Documents, or question-answer pairs."""
    skipped: int
    """Documents or pairs left out: empty, too long, or unreadable."""
    epochs: float
    """How often the run will have seen its training data at its last step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainMeasured(Event):
    """One optimizer step is done."""

    step: int
    tokens: int
    """Tokens that the run has been fed so far, padding left out."""
    loss: float
    """Mean nats per supervised token over the whole accumulated batch, before the step's update."""
    learning_rate: float
    grad_norm: float
    """Of the accumulated gradient, before clipping."""
    tokens_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated(Event):
    """The validation loss of the weights after `step` steps."""

    step: int
    tokens: int
    loss: float
    bits_per_byte: float
    """Compares across vocabularies; nan where the text's bytes are not known."""
    elapsed_s: float
    steps: int = 0
    """The run's last step, as planned then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleDrawn(Event):
    """What the model answers to one of its fixed prompts after `step` steps."""

    step: int
    prompt: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningRateChanged(Event):
    """Someone changed the rate by hand. It holds from the update that makes `step` on."""

    step: int
    tokens: int
    before: float
    after: float
    multiplier: float
    """The factor on the schedule from here on; what a resumed run applies again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulePlanned(Event):
    """Someone planned the rate anew by hand. It holds from the update that makes `step` on."""

    step: int
    tokens: int
    shape: str
    """cosine, linear, constant"""
    rate: float
    """What it begins from: the rate as it was."""
    final_rate: float
    until_step: int
    """The update that first has `final_rate`."""
    steps: int
    """The run's last step from here on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationIntervalChanged(Event):
    """Someone changed how often is validated, from `step` on."""

    step: int
    tokens: int
    before: int
    after: int
    """Steps between validations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteAdded(Event):
    """Someone wrote something down about this place of the run."""

    step: int
    tokens: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSaved(Event):
    step: int
    path: str
    """Name of the checkpoint's folder inside the run folder."""
    bytes_written: int
    is_best: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSetAside(Event):
    """A checkpoint did not verify, and an older one was taken instead."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPaused(Event):
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContinued(Event):
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NonFiniteMet(Event):
    """A loss or gradient was not a number. The update was not made."""

    step: int
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned(Event):
    """Something that the user should know and that did not stop the run."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded(Event):
    """The run's process is done with it. `reason`: completed, stopped, failed, or a signal's name."""

    step: int
    reason: str
    message: str
    elapsed_s: float
    """Of this process, pauses included."""


# ---------------------------------------------------------------- commands


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLearningRate(Command):
    """Make the rate this much from the next update on; the schedule goes on from there in proportion."""

    learning_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleLearningRate(Command):
    """Multiply the rate, whatever it is when the command is read."""

    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSchedule(Command):
    """Lead the rate from what it is now to `final_rate` over `tokens` tokens and end the run there.

    With the shape constant the rate stays as it is to the run's last step, and the other two say nothing.
    """

    shape: str
    """cosine, linear, constant"""
    tokens: int = 0
    """0: until the run's last step."""
    final_rate: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SetValidationInterval(Command):
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AddNote(Command):
    """Write something down about where the run is; it stands on the chart."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause(Command):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume(Command):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop(Command):
    """End the run after the last finished step; with `save`, write a checkpoint first."""

    save: bool = True
    reason: str = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveNow(Command):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleNow(Command):
    pass


# ---------------------------------------------------------------- lines


def _subclasses(base: type[Record]) -> dict[str, type[Record]]:
    return {kind.__name__: kind for kind in base.__subclasses__()}


_EVENTS = _subclasses(Event)
_COMMANDS = _subclasses(Command)
_HINTS = {kind: get_type_hints(kind) for kind in [*_EVENTS.values(), *_COMMANDS.values()]}


def now() -> str:
    """The present instant in UTC as ISO text, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def event_from_line(line: str | bytes) -> Event | None:
    """The event on a line, or None for a line that holds none: torn, garbage, or of a newer version."""
    return _from_line(line, "event", _EVENTS)  # type: ignore[return-value]


def event_from_row(row: Any) -> Event | None:
    """The event that `to_row` wrote, or None for anything else."""
    return _from_row(row, "event", _EVENTS)  # type: ignore[return-value]


def command_from_line(line: str | bytes) -> Command | None:
    """The command on a line, or None for a line that holds none."""
    return _from_line(line, "command", _COMMANDS)  # type: ignore[return-value]


def instant_of_line(line: str | bytes) -> str:
    """The `at` of a line, or an empty text."""
    try:
        return str(json.loads(line).get("at", ""))
    except (ValueError, AttributeError, RecursionError):
        return ""


def _from_line(line: str | bytes, key: str, kinds: dict[str, type[Record]]) -> Record | None:
    try:
        return _from_row(json.loads(line), key, kinds)
    except (ValueError, RecursionError):
        return None


def _from_row(row: Any, key: str, kinds: dict[str, type[Record]]) -> Record | None:
    try:
        kind = kinds[row[key]]
        values = {}
        for field in fields(kind):
            if field.name in row:
                values[field.name] = _decode(row[field.name], _HINTS[kind][field.name])
        return kind(**values)
    # A log may have been cut in mid-write or written by a newer version: such lines are passed over, never fatal.
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _encode(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, str):
        # A lone surrogate cannot be written as UTF-8.
        return value.encode("utf-8", "replace").decode("utf-8")
    return value


_CHECKS: dict[type, Callable[[Any], bool]] = {
    # A count past 64 bits is garbage, and a chart could not divide it.
    int: lambda value: isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63,
    bool: lambda value: isinstance(value, bool),
    str: lambda value: isinstance(value, str),
}


def _decode(value: Any, hint: Any) -> Any:
    if hint is float:
        if isinstance(value, str):
            return _SPECIAL_FLOATS[value]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError
        return float(value)
    kind = hint if isinstance(hint, type) else get_args(hint)[0]
    if not _CHECKS[kind](value):
        raise TypeError
    return value
