"""Training in a process of its own, that outlives whoever started it."""

import os
import subprocess
import sys

from core.errors import RetryLaterError
from core.runs import Run
from tui.on_event import ON_EVENT


def train_detached(run: Run, on_event: str = "") -> "subprocess.Popen[bytes]":
    """Let a new process, in a session of its own, go on with the run. Raises: RetryLaterError.

    A hang-up of the terminal does not reach it; what it prints goes into the run's `stderr.log`.

    Args:
        on_event: the user's command for alerts, which the new process runs from then on.
    """
    root = run.folder.parents[2]
    command = [sys.executable, "-m", "tui.cli", "train", run.stage, "--resume", run.name, "--root", str(root)]
    try:
        with (run.folder / "stderr.log").open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, ON_EVENT: on_event},
            )
    except OSError as error:
        raise RetryLaterError(
            f"No process could be started for {run.name}: {error.strerror or error}.",
            "Its checkpoint stands: resume the run here, or later.",
        ) from None
