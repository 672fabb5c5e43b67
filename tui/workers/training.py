"""A stage, or a queue of them, trained in a background thread of the app.

What the screen shows of a run comes from its log.
"""

import contextlib
import gc
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from textual.message import Message

from core.allocator import give_back
from core.commands import Stop
from core.errors import BbtuiError, UsageError
from core.events import RunEnded, RunStarted, TrainMeasured
from core.runs import Run, Runs
from core.stage_queue import QueueFile, StageQueue
from tui.messages import QueueMoved, RunOpened, StageFailed, StageFinished
from tui.terminal import stderr_into


@dataclass(frozen=True, slots=True)
class StageRequest:
    """What to train: a new run of a preset's stage, (`resume` given) an old run further, or a queue."""

    stage: str
    preset: str = ""
    from_run: str | None = None
    overrides: tuple[str, ...] = ()
    resume: Run | None = None
    queue: QueueFile | None = None
    """The queue to work off; `stage` is where it begins."""
    new_queue: StageQueue | None = None
    """What takes the place of the queue that is there."""


class TrainingJob:
    """One stage in its thread, or a queue's stages one after the other.

    Args:
        post: a thread-safe function that takes messages: `App.post_message`.
        log_folder: where a failure is written that comes before there is a run.
    """

    def __init__(
        self, store: Runs, request: StageRequest, post: Callable[[Message], object], log_folder: Path
    ) -> None:
        self.request = request
        self.stage = request.stage
        """The stage that is being trained, or about to be."""
        self.run: Run | None = request.resume
        self._store = store
        self._post = post
        self._log_folder = log_folder
        self._stop: Stop | None = None
        self._thread = threading.Thread(target=self._work, name=f"train {request.stage}", daemon=True)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def is_stopping(self) -> bool:
        return self._stop is not None

    def start(self) -> "TrainingJob":
        self._thread.start()
        return self

    def stop(self, save: bool, reason: str = "stopped") -> None:
        """Ask it to end; it does within one micro-batch, or before it begins."""
        self._stop = Stop(save=save, reason=reason)
        if self.run:
            with contextlib.suppress(BbtuiError):
                self.run.tell(self._stop)

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; whether it came."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            run, reason = self._work_off(self.request.queue) if self.request.queue else self._train()
        except BbtuiError as error:
            self._fail(error.what, error.fix)
        except Exception as error:
            # A defect, or a library's own failure: the words go on the screen, the traceback into the file.
            self._fail(
                f"Training failed: {type(error).__name__}: {str(error)[:300]}", "", traceback.format_exc()
            )
        else:
            self._post(StageFinished(run, reason))
        finally:
            give_back()

    def _train(self) -> tuple[Run, str]:
        from core import launch

        request = self.request
        if request.resume:
            run = launch.resume(self._store, request.resume.name)
        else:
            run = launch.start(
                self._store, request.preset, request.stage, request.from_run, list(request.overrides)
            )
        return run, self._train_run(run)

    def _work_off(self, queue: QueueFile) -> tuple[Run, str]:
        """The queue's last run of now and why the work ended; not completed where it ended short of that."""
        from core import launch

        with queue.held():
            if self.request.new_queue:
                queue.write(self.request.new_queue)
            run, reason = None, ""
            for task in queue.tasks():
                # A stop that came after a run's last step is obeyed before the next one.
                if self._stop and run:
                    return run, self._stop.reason
                self.stage, self.run = task.stage, None
                self._post(QueueMoved(task))
                run = launch.begin(queue, task)
                reason = self._train_run(run)
        if run is None:
            raise UsageError("The queue has nothing left to do.", "Q begins a new one.")
        return run, reason

    def _train_run(self, run: Run) -> str:
        """Train this run; why it ended."""
        from core.train import train

        self._post(RunOpened(run))
        reason = "interrupted"
        if self._stop:
            # Nothing was told to the run yet: whoever goes on with it must not read that it shall end.
            return self._stop.reason
        self.run = run
        with stderr_into(run.folder / "stderr.log"):
            for event in train(run.config, run):
                if isinstance(event, RunStarted) and self._stop:
                    # It was asked to end before it listened.
                    run.tell(self._stop)
                elif isinstance(event, TrainMeasured):
                    _keep_collections_short()
                elif isinstance(event, RunEnded):
                    reason = event.reason
        return reason

    def _fail(self, what: str, fix: str, details: str = "") -> None:
        folder = self.run.folder if self.run else self._log_folder
        path = folder / "stderr.log"
        if details:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with path.open("a", encoding="utf-8", errors="replace") as log:
                    log.write(details)
            except OSError:
                path = Path()
        log_path = str(path) if path.is_file() else ""
        self._post(StageFailed(self.stage, self.run, what, fix, log_path))


@cache
def _keep_collections_short() -> None:
    """Take all objects that stand now out of the cyclic collector's sight, once a process.

    With torch loaded a full collection walks half a million objects, holds every thread for 200 ms, and comes
    every few seconds while the chart is redrawn. What a first step has imported stays for good anyway.
    """
    gc.collect()
    gc.freeze()
