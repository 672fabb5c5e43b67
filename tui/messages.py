"""What panes, workers and the app tell one another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.message import Message

from core.errors import BbtuiError
from core.log_columns import Columns, Logged
from core.runs import Run
from core.stage_queue import QueueTask, Standing
from tui.alerts import Alert

if TYPE_CHECKING:
    from tui.run_state import RunState


class OpenRun(Message):
    """Someone wants to see this run: the app shows it in its stage's tab, replayed whole."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run


class ResumeRun(Message):
    """Someone wants this run to go on from its last checkpoint."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run


class RunChanged(Message):
    """Something was done to a run that is over: a note was written, checkpoints went, or all of it."""

    def __init__(self, run: Run, is_gone: bool) -> None:
        super().__init__()
        self.run = run
        self.is_gone = is_gone


class StartStage(Message):
    """Someone wants a new run of a stage; `detached` in a process of its own."""

    def __init__(
        self, stage: str, preset: str, from_run: str | None, overrides: Sequence[str], detached: bool = False
    ) -> None:
        super().__init__()
        self.stage = stage
        self.preset = preset
        self.from_run = from_run
        self.overrides = list(overrides)
        self.detached = detached


class StopOwnRun(Message):
    """Someone wants the run that this app trains, or is about to start, to end."""

    def __init__(self, save: bool, stage: str = "") -> None:
        super().__init__()
        self.save = save
        self.stage = stage


class DetachOwnRun(Message):
    """Someone wants the run that this app trains to go on in a process of its own."""


class StartQuickstart(Message):
    """Someone wants all four stages, one after the other."""


class StageChanged(Message):
    """A stage's tab shows another run, or its run's state has changed."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self.stage = stage


class RunOpened(Message):
    """The training worker has a run folder and is about to train it."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run


class QueueMoved(Message):
    """The training worker is about to do this task of the queue."""

    def __init__(self, task: QueueTask) -> None:
        super().__init__()
        self.task = task


class QueueFound(Message):
    """What a look at the root's queue found.

    `problem` says why it cannot be read; `looked_at` is the monotonic time at which the look began.
    """

    def __init__(self, standing: Standing | None, problem: BbtuiError | None, looked_at: float) -> None:
        super().__init__()
        self.standing = standing
        self.problem = problem
        self.looked_at = looked_at


class RunRead(Message):
    """A run's log has been read as far as it went; from here on the state belongs to whoever gets this."""

    def __init__(self, state: "RunState", source: object = None) -> None:
        super().__init__()
        self.state = state
        self.source = source
        """Who read it: a tab that has changed its run gets late words of the one before."""


class RunEvents(Message):
    """What a run's log has gained since."""

    def __init__(self, run: Run, found: Sequence[Columns | Logged], source: object = None) -> None:
        super().__init__()
        self.run = run
        self.found = found
        self.source = source


class ReplayOver(Message):
    """A run has been told again to its end."""

    def __init__(self, source: object) -> None:
        super().__init__()
        self.source = source


class RunLiveness(Message):
    """Whether some process holds the run, and figures of it and of the disk; about once a second."""

    def __init__(self, run: Run, is_live: bool, memory_bytes: int, disk_free_bytes: int) -> None:
        super().__init__()
        self.run = run
        self.is_live = is_live
        self.memory_bytes = memory_bytes
        self.disk_free_bytes = disk_free_bytes


class RunsFound(Message):
    """What a look under the root found: the run to show for each stage, and how far each stage is."""

    def __init__(self, runs: "dict[str, FoundRun]", is_first: bool) -> None:
        super().__init__()
        self.runs = runs
        self.is_first = is_first


@dataclass(frozen=True, slots=True)
class FoundRun:
    """The newest run of a stage."""

    run: Run
    state: str
    has_finished: bool
    """Whether any run of this stage and preset has completed."""


class StageFinished(Message):
    """The training worker is done. `reason` is as in RunEnded."""

    def __init__(self, run: Run, reason: str) -> None:
        super().__init__()
        self.run = run
        self.reason = reason


class StageFailed(Message):
    """The training worker met an error; `run` is None where it came before there was a run."""

    def __init__(self, stage: str, run: Run | None, what: str, fix: str, log: str) -> None:
        super().__init__()
        self.stage = stage
        self.run = run
        self.what = what
        self.fix = fix
        self.log = log
        """Path of the file that holds more, or an empty text."""


class AlertRaised(Message):
    """The watch over the live runs has found cause for word."""

    def __init__(self, alert: Alert) -> None:
        super().__init__()
        self.alert = alert


class AlertCommandDone(Message):
    """The user's command for an alert has ended; `problem` is empty where all went well."""

    def __init__(self, alert: Alert, problem: str) -> None:
        super().__init__()
        self.alert = alert
        self.problem = problem
