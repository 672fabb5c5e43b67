"""Everything that happens in a run: past tense, a line of `events.jsonl` each."""

from dataclasses import dataclass
from typing import Any, ClassVar

from core.records import Reader, Record

DETACHED = "detached"
"""Why a run ended that another process is to go on with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Record):
    kind_key: ClassVar[str] = "event"


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
class Heartbeat(Event):
    """The process lives: written every few seconds, in the middle of a long step too."""

    step: int
    """The last finished one."""
    tokens: int
    micro_batches_done: int
    """Of the step being made."""
    micro_batches: int
    """Of the step being made; 0 while something else is done."""
    memory_bytes: int
    """Resident in the process."""
    gpu_memory_bytes: int = 0
    """Allocated on the GPU; 0 where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswersScored(Event):
    """How likely the weights after `step` steps find the right answers of a fixed part of a held-out set."""

    step: int
    tokens: int
    questions: str
    """Name of the set, as in the eval's report."""
    items: int
    mean_probability: float
    """Mean over all answer tokens of the correct token's probability, as `bbtui eval` measures it."""
    elapsed_s: float


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
    best_by: str = ""
    """The rule that says which checkpoint is best, as the run's configuration names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSetAside(Event):
    """A checkpoint did not verify, and an older one was taken instead."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPaused(Event):
    step: int
    reason: str = ""
    """What is in the way, with what to do about it; empty where the user paused it."""


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
    """The run's process is done with it. `reason`: completed, stopped, failed, detached, or a signal's name."""

    step: int
    reason: str
    message: str
    elapsed_s: float
    """Of this process, pauses included."""


_READER = Reader(Event)


def event_from_line(line: str | bytes) -> Event | None:
    """The event on a line, or None for a line that holds none: torn, garbage, or of a newer version."""
    return _READER.from_line(line)


def event_from_row(row: Any) -> Event | None:
    """The event that `to_row` wrote, or None for anything else."""
    return _READER.from_row(row)
