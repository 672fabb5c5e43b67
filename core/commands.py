"""Everything that a run can be told: imperative, a line of `commands.jsonl` each."""

from dataclasses import dataclass
from typing import ClassVar

from core.records import Reader, Record

LONGEST_NOTE = 200
"""Characters of a note that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command(Record):
    kind_key: ClassVar[str] = "command"


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


_READER = Reader(Command)


def command_from_line(line: str | bytes) -> Command | None:
    """The command on a line, or None for a line that holds none."""
    return _READER.from_line(line)
