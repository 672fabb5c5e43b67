"""The queue: a preset's stages in their order, kept in a file, so that the next day goes on where this one stopped.

The file says what is to be done and which run does it. How far each run is, its own log says.
"""

import contextlib
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from pydantic import TypeAdapter

from core.config import STAGES, Stage
from core.errors import BbtuiError, MissingError, RetryLaterError, RunBusyError, UsageError
from core.hold import held, is_held
from core.records import now
from core.runs import Run, Runs, Summary

LARGEST_SCALE = 1000.0
_LONGEST_BYTES = 1 << 16
_LONGEST_TEXT = 100
_RUN_NAME = re.compile(r"^(?P<stage>[a-z-]+)/[A-Za-z0-9][A-Za-z0-9._-]{0,200}\Z")


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """One stage of a queue."""

    stage: Stage
    run: str = ""
    """Name of the run that does it; empty until it has begun."""


@dataclass(frozen=True, slots=True)
class StageQueue:
    """What the file holds."""

    preset: str
    steps_scale: float = 1.0
    """How many times the preset's steps each stage trains."""
    entries: tuple[QueueEntry, ...] = tuple(QueueEntry(stage) for stage in STAGES)
    stop_after: str = ""
    """The stage after which nothing begins until someone goes on; empty for none."""
    made_at: str = ""


_READER = TypeAdapter(StageQueue)


@dataclass(frozen=True, slots=True)
class QueueTask:
    """What a queue does next: go on with a run, or begin a stage."""

    stage: Stage
    run: str = ""
    """Name of the run to go on with; empty where the stage is to begin."""
    parent: str = ""
    """Name of the run that the stage begins from."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A queue, and how far each of its runs is."""

    queue: StageQueue
    summaries: tuple[Summary | None, ...]
    """In the order of the entries; None where the stage has not begun, or its run is no longer there."""
    is_worked: bool = False
    """Whether some process works it off, this one included."""

    @property
    def next(self) -> QueueTask | None:
        """What comes now, or None when all is done. The latest stage that was begun counts."""
        entries = self.queue.entries
        for at in reversed(range(len(entries))):
            summary = self.summaries[at]
            if summary is None:
                continue
            if summary.state != "completed":
                return QueueTask(entries[at].stage, run=entries[at].run)
            if at + 1 == len(entries):
                return None
            return QueueTask(entries[at + 1].stage, parent=entries[at].run)
        return QueueTask(entries[0].stage)

    @property
    def is_done(self) -> bool:
        return self.next is None

    @property
    def stages(self) -> list[str]:
        return [entry.stage for entry in self.queue.entries]

    @property
    def stages_ahead(self) -> list[str]:
        """The stage that comes next or is being trained, and those after it."""
        following = self.next
        return self.stages[self.stages.index(following.stage) :] if following else []

    @property
    def stop_after(self) -> str:
        """The stage after which it will stop, as long as that is still ahead; else an empty text."""
        return self.queue.stop_after if self.queue.stop_after in self.stages_ahead else ""

    def summary_of(self, stage: str) -> Summary | None:
        """How far a stage's run is; None where it has none."""
        return self.summaries[self.stages.index(stage)] if stage in self.stages else None


def new_queue(preset: str, steps_scale: float = 1.0) -> StageQueue:
    """The four stages of a preset, none begun."""
    return StageQueue(preset, steps_scale, made_at=now())


class QueueFile:
    """The one queue under a root. Making the object touches nothing."""

    def __init__(self, store: Runs) -> None:
        self.store = store
        self.path = store.folder / "queue.json"

    # ------------------------------------------------------------ reading

    def read(self) -> StageQueue | None:
        """The queue, or None where there is none. Raises: UsageError where the file is damaged."""
        try:
            if self.path.stat().st_size > _LONGEST_BYTES:
                raise ValueError
            queue = _READER.validate_json(self.path.read_bytes(), strict=True)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise RetryLaterError(f"Cannot read {self.path}: {error.strerror}.", "Try again.") from None
        except (ValueError, RecursionError):
            queue = None
        if queue is None or not _is_sound(queue):
            raise UsageError(
                f"{self.path} is damaged: it holds no queue.",
                "Remove it with `bbtui queue clear`; the runs stay. Each can be resumed alone.",
            )
        return queue

    def standing(self) -> Standing | None:
        """Where the queue stands now, or None where there is none. Raises: UsageError, RetryLaterError."""
        queue = self.read()
        if queue is None:
            return None
        summaries = tuple(self._summary_of(entry) for entry in queue.entries)
        return Standing(queue, summaries, self.is_held())

    def _summary_of(self, entry: QueueEntry) -> Summary | None:
        run = Run(self.store.folder / entry.run) if entry.run else None
        return run.summary() if run and (run.folder / "config.toml").is_file() else None

    # ------------------------------------------------------------ changing

    def write(self, queue: StageQueue) -> None:
        """Put this queue in the place of what is there. Raises: RetryLaterError."""
        beside = self.path.with_suffix(".tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(_READER.dump_json(queue, indent=1))
            beside.replace(self.path)
        except OSError as error:
            raise self._cannot_write(error) from None

    def change(self, changed: Callable[[StageQueue], StageQueue]) -> StageQueue:
        """Replace the queue by what the function makes of it, and return that. Raises: MissingError, UsageError.

        Whoever works the queue off and whoever asks it to stop may do so at the same instant.
        """
        busy = RetryLaterError("Another process is changing the queue.", "Try again.")
        with self._locked("queue.change.lock", busy):
            queue = self.read()
            if queue is None:
                raise MissingError("There is no queue.", "Begin one: bbtui quickstart")
            queue = changed(queue)
            self.write(queue)
            return queue

    def note_begun(self, run: Run) -> None:
        """Write down which run does its stage."""

        def noted(queue: StageQueue) -> StageQueue:
            entries = (replace(e, run=run.name) if e.stage == run.stage else e for e in queue.entries)
            return replace(queue, entries=tuple(entries))

        self.change(noted)

    def stop_after(self, stage: str) -> StageQueue:
        """Begin nothing after this stage until someone goes on; an empty text takes it back."""
        return self.change(lambda queue: replace(queue, stop_after=stage))

    def clear(self) -> bool:
        """Forget the queue, damaged or not; its runs stay. Whether there was one. Raises: RunBusyError."""
        if not self.path.exists():
            return False
        with self.held():
            try:
                self.path.unlink(missing_ok=True)
            except OSError as error:
                raise self._cannot_write(error) from None
        return True

    # ------------------------------------------------------------ working it off

    def held(self) -> contextlib.AbstractContextManager[None]:
        """Hold the queue while it is worked off. Raises: RunBusyError where another process does."""
        busy = "Another process works off the queue."
        return self._locked("queue.lock", RunBusyError(busy, "Watch it in the app, or stop it there first."))

    def is_held(self) -> bool:
        """Whether some process, this one included, works the queue off."""
        return is_held(self.path.with_name("queue.lock"))

    def tasks(self) -> Iterator[QueueTask]:
        """One task after the other; whoever asks for the next has trained the one before.

        It ends when all is done, after a stage that was to be the last, and after one that did not complete.
        Raises: MissingError where there is no queue; UsageError where the file is damaged.
        """
        standing = self.standing()
        if standing is None:
            raise MissingError("There is no queue.", "Begin one: bbtui quickstart")
        while standing and (task := standing.next):
            yield task
            standing = self.standing()
            summary = standing.summary_of(task.stage) if standing else None
            if not standing or not summary or summary.state != "completed":
                return
            if standing.queue.stop_after == task.stage:
                return

    def _locked(self, name: str, busy: BbtuiError) -> contextlib.AbstractContextManager[None]:
        with contextlib.suppress(OSError):  # where there can be no folder, the lock says so
            self.path.parent.mkdir(parents=True, exist_ok=True)
        return held(self.path.with_name(name), busy)

    def _cannot_write(self, error: OSError) -> RetryLaterError:
        return RetryLaterError(
            f"Cannot write {self.path}: {error.strerror or error}.",
            "Free disk space, or mend its permissions; then try again.",
        )


def _is_sound(queue: StageQueue) -> bool:
    """Whether the stages follow one another, and every name is one that may be looked up on the disk."""
    stages = tuple(entry.stage for entry in queue.entries)
    first = STAGES.index(stages[0]) if stages else 0
    names = [_RUN_NAME.match(entry.run) for entry in queue.entries if entry.run]
    begun = [entry.stage for entry in queue.entries if entry.run]
    return (
        bool(stages)
        and stages == STAGES[first : first + len(stages)]
        and [match and match["stage"] for match in names] == begun
        and (not queue.stop_after or queue.stop_after in stages)
        and math.isfinite(queue.steps_scale)
        and 0 < queue.steps_scale <= LARGEST_SCALE
        and max(len(queue.preset), len(queue.made_at)) <= _LONGEST_TEXT
    )
