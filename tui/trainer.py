"""What this app trains: one run at a time, alone or as one of the four that quickstart runs in order."""

from collections.abc import Callable
from pathlib import Path

from textual.message import Message

from core.config import STAGES
from core.events import DETACHED
from core.runs import Run, Runs
from tui.workers.training import StageRequest, TrainingJob


class Trainer:
    """Holds the training thread, and the stages that are still to come.

    Args:
        post: a thread-safe function that takes messages: `App.post_message`.
        log_folder: where a failure is written that comes before there is a run.
    """

    def __init__(self, store: Runs, post: Callable[[Message], object], log_folder: Path) -> None:
        self._store = store
        self._post = post
        self._log_folder = log_folder
        self.job: TrainingJob | None = None
        self.stages_to_come: list[str] = []
        self._preset = ""

    @property
    def stage(self) -> str:
        """The stage being trained here, or an empty text."""
        return self.job.request.stage if self.job else ""

    @property
    def is_busy(self) -> bool:
        return self.job is not None

    @property
    def is_chained(self) -> bool:
        """Whether the run is part of a quickstart."""
        return bool(self._preset)

    def start(self, request: StageRequest) -> None:
        """Begin; whoever calls has made sure that nothing else is being trained."""
        self.job = TrainingJob(self._store, request, self._post, self._log_folder).start()

    def start_all(self, preset: str) -> str:
        """Begin with the first stage of a quickstart; its name."""
        self._preset = preset
        self.stages_to_come = list(STAGES)
        return self.start_next()

    def start_next(self) -> str:
        """Begin with the next stage of the quickstart; its name, or an empty text when all are done."""
        if not self.stages_to_come:
            self._preset = ""
            return ""
        stage = self.stages_to_come.pop(0)
        self.start(StageRequest(stage, self._preset))
        return stage

    def ended(self) -> None:
        """The thread has said its last word."""
        self.job = None

    def end_chain(self) -> None:
        """No further stage is begun."""
        self.stages_to_come, self._preset = [], ""

    def stop(self, save: bool, reason: str = "stopped") -> None:
        """Ask the run to end, and the quickstart with it."""
        self.end_chain()
        if self.job:
            self.job.stop(save, reason)

    def detach(self) -> bool:
        """Ask the run to save and end, so that another process can go on with it; whether it has begun."""
        if self.job is None or self.job.run is None or self.job.is_stopping:
            return False
        self.stop(save=True, reason=DETACHED)
        return True

    def is_training(self, run: Run) -> bool:
        return self.job is not None and self.job.run == run
