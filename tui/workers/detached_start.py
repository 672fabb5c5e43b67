"""A run in a process of its own, begun there or gone on with: a thread makes it, and waits until it is held.

A new run's folder is made in the thread, too: its parent is checked with torch.
"""

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from textual.message import Message

from core.commands import Stop
from core.errors import BbtuiError
from core.runs import Run, Runs
from tui.detached import train_detached
from tui.workers.failures import in_words
from tui.workers.training import StageRequest

_LONGEST_WAIT_S = 120.0
_LOOK_S = 0.1


class DetachedBegun(Message):
    """The process holds its run: it can be watched."""

    def __init__(self, run: Run, process: "subprocess.Popen[bytes]", was_resumed: bool = False) -> None:
        super().__init__()
        self.run = run
        self.process = process
        self.was_resumed = was_resumed
        """Whether the process goes on with a run that was trained before."""


class DetachedFailed(Message):
    """No process trains it."""

    def __init__(self, stage: str, what: str, fix: str, log: str = "") -> None:
        super().__init__()
        self.stage = stage
        self.what = what
        self.fix = fix
        self.log = log
        """Path of the file that holds more, or an empty text."""


class DetachedStart:
    """Makes the run folder, starts the process, and waits until it has taken the run.

    Args:
        process: started already, to go on with `request.resume`: it is only waited for.
        post: a thread-safe function that takes messages: `App.post_message`.
        log_folder: where a failure is written that comes before there is a run.
        on_event: the user's command for alerts, which the new process runs.
    """

    def __init__(
        self,
        store: Runs,
        request: StageRequest,
        post: Callable[[Message], object],
        log_folder: Path,
        on_event: str = "",
        process: "subprocess.Popen[bytes] | None" = None,
    ) -> None:
        self._store = store
        self._request = request
        self._post = post
        self._log_folder = log_folder
        self._on_event = on_event
        self._process = process
        self._run: Run | None = None
        self._stop: Stop | None = None
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"detach {request.stage}", daemon=True)

    def start(self) -> "DetachedStart":
        self._thread.start()
        return self

    def stop(self, save: bool) -> None:
        """Have the run end as soon as its process listens."""
        self._stop = Stop(save=save)
        if self._run:
            self._run.tell(self._stop)

    def leave(self, timeout_s: float) -> None:
        """Wait no longer than for the process to be started."""
        self._left.set()
        self._thread.join(timeout_s)

    def _work(self) -> None:
        try:
            self._begin()
        except BbtuiError as error:
            self._fail(error.what, error.fix)
        except Exception as error:
            self._fail(*in_words(error, self._log_folder))

    def _begin(self) -> None:
        resumed = self._request.resume
        run, process = (resumed, self._process) if resumed and self._process else self._started()
        for _ in range(round(_LONGEST_WAIT_S / _LOOK_S)):
            if run.is_held() or process.poll() is not None or self._left.wait(_LOOK_S):
                break
        if process.poll():
            queue = self._request.queue
            log = queue.path.with_suffix(".log") if queue else run.folder / "stderr.log"
            self._fail(f"{run.name}: its process ended at once.", "See its log.", str(log))
            return
        self._post(DetachedBegun(run, process, was_resumed=resumed is not None))
        if resumed and self._stop:
            # What was told before would count as meant for the process before this one.
            self._left.wait(_LOOK_S)
            run.tell(self._stop)

    def _started(self) -> "tuple[Run, subprocess.Popen[bytes]]":
        from core import launch

        request = self._request
        run = launch.start(
            self._store, request.preset, request.stage, request.from_run, list(request.overrides)
        )
        self._run = run
        if self._stop:
            run.tell(self._stop)
        return run, train_detached(run, self._on_event)

    def _fail(self, what: str, fix: str, log: str = "") -> None:
        self._post(DetachedFailed(self._request.stage, what, fix, log))
