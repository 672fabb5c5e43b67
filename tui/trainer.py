"""What this app trains: one run at a time, alone or as one of a queue."""

from collections.abc import Callable
from pathlib import Path

from textual.message import Message

from core.events import DETACHED
from core.runs import Run, Runs
from tui.workers.training import StageRequest, TrainingJob


class Trainer:
    """Holds the training thread.

    Args:
        post: a thread-safe function that takes messages: `App.post_message`.
        log_folder: where a failure is written that comes before there is a run.
    """

    def __init__(self, store: Runs, post: Callable[[Message], object], log_folder: Path) -> None:
        self._store = store
        self._post = post
        self._log_folder = log_folder
        self.job: TrainingJob | None = None

    @property
    def stage(self) -> str:
        """The stage being trained here, or an empty text."""
        return self.job.stage if self.job else ""

    @property
    def is_busy(self) -> bool:
        return self.job is not None

    @property
    def is_queue(self) -> bool:
        """Whether the run is one of a queue that is worked off here."""
        return self.job is not None and self.job.request.queue is not None

    def start(self, request: StageRequest) -> None:
        """Begin; whoever calls has made sure that nothing else is being trained."""
        self.job = TrainingJob(self._store, request, self._post, self._log_folder).start()

    def ended(self) -> None:
        """The thread has said its last word."""
        self.job = None

    def stop(self, save: bool, reason: str = "stopped") -> None:
        """Ask the run to end, and the queue with it."""
        if self.job:
            self.job.stop(save, reason)

    def detach(self) -> bool:
        """Ask the run to save and end, so that another process can go on with it; whether that was news to it."""
        if self.job is None or self.job.is_stopping:
            return False
        self.stop(save=True, reason=DETACHED)
        return True

    def is_training(self, run: Run) -> bool:
        return self.job is not None and self.job.run == run
