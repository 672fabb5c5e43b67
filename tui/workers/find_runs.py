"""A thread that looks under the root every few seconds: the newest run of each stage, which of them live, the queue."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from textual.message import Message

from core.config import STAGES
from core.errors import BbtuiError
from core.runs import PUBLISHED, Run, Runs
from core.stage_queue import QueueFile
from tui.messages import FoundRun, QueueFound, RunsFound
from tui.workers.follow import load_what_draws

_EVERY_S = 3.0


@dataclass(frozen=True, slots=True)
class _Known:
    mark: tuple[int, int]
    state: str
    preset: str
    last_at: str


class RunFinder:
    """Posts RunsFound at once, when asked to look, and whenever something has changed; QueueFound at every look.

    Args:
        post: a thread-safe function that takes messages: `App.post_message`.
        preset: asked at each look; a stage counts as done where a run of this preset has completed.
        watch: told at each look, in this thread, which runs live or have got on since the last look.
    """

    def __init__(
        self,
        store: Runs,
        post: Callable[[Message], object],
        preset: Callable[[], str],
        watch: Callable[[list[Run]], object],
    ) -> None:
        self._store = store
        self._post = post
        self._preset = preset
        self._watch = watch
        self._active: list[Run] = []
        self._is_first = True
        self._known: dict[Path, _Known] = {}
        self._wake = threading.Event()
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._look_around, name="find runs", daemon=True)

    def start(self) -> "RunFinder":
        self._thread.start()
        return self

    def look_now(self) -> None:
        """Look again without waiting for the next turn."""
        self._wake.set()

    def leave(self) -> None:
        self._left.set()
        self._wake.set()

    def _look_around(self) -> None:
        last: dict[str, FoundRun] | None = None
        is_asked = True
        while not self._left.is_set():
            found = self.look()
            self._watch(self._active)
            if (is_asked or found != last) and not self._left.is_set():
                self._post(RunsFound(found, is_first=last is None))
                last = found
            queue = self.look_at_queue()
            if not self._left.is_set():
                self._post(queue)
            load_what_draws()
            is_asked = self._wake.wait(_EVERY_S)
            self._wake.clear()

    def look_at_queue(self) -> QueueFound:
        """Where the queue stands, or why it cannot be read."""
        looked_at = time.monotonic()
        try:
            return QueueFound(QueueFile(self._store).standing(), None, looked_at)
        except BbtuiError as error:
            return QueueFound(None, error, looked_at)
        except OSError as error:
            problem = BbtuiError(f"A run of the queue cannot be read: {error.strerror or error}.")
            return QueueFound(None, problem, looked_at)

    def look(self) -> dict[str, FoundRun]:
        """The most recently active run of each stage that has one."""
        found: dict[str, FoundRun] = {}
        self._active = []
        preset = self._preset()
        for stage in STAGES:
            newest: tuple[str, Run, str] | None = None
            has_finished = False
            for run in self._store.all(stage):
                if run.id == PUBLISHED:
                    continue
                before = self._known.get(run.folder)
                known = self._know(run)
                # A note changes the log, but the run gets on by no step.
                got_on = not self._is_first and (before is None or before.last_at != known.last_at)
                if got_on or known.state in ("running", "paused"):
                    self._active.append(run)
                if not has_finished and known.state == "completed" and known.preset == preset:
                    # Nothing can start from a run of which only the log was kept.
                    has_finished = bool(run.checkpoint_steps())
                if newest is None or known.last_at >= newest[0]:
                    newest = (known.last_at, run, known.state)
            if newest:
                found[stage] = FoundRun(newest[1], newest[2], has_finished)
        self._is_first = False
        return found

    def _know(self, run: Run) -> _Known:
        """The run's state; only a run that lives or whose log has changed is looked at again."""
        try:
            status = run.events_file.stat()
            mark = (status.st_mtime_ns, status.st_size)
        except OSError:
            mark = (0, 0)
        known = self._known.get(run.folder)
        if known and known.mark == mark and known.state not in ("running", "paused", "new"):
            return known
        try:
            preset = known.preset if known else run.config.preset
            summary = run.summary()
            known = _Known(mark, summary.state, preset, summary.last_at)
        except (BbtuiError, OSError):
            known = _Known(mark, "interrupted", "", "")
        self._known[run.folder] = known
        return known
