"""Training in a process of its own, that outlives whoever started it."""

import os
import subprocess
import sys
from pathlib import Path

from core.errors import RetryLaterError
from core.runs import Run
from core.stage_queue import QueueFile
from tui.on_event import ON_EVENT

_HOME = Path(__file__).resolve().parents[1]
# A folder `core` or `tui` where the app was started is not ours: nothing is looked up there.
_BEGIN = """import sys
home = sys.argv.pop(1)
if home not in sys.path:
    sys.path.insert(0, home)
from tui.cli import main
main()"""


def train_detached(run: Run, on_event: str = "") -> "subprocess.Popen[bytes]":
    """Let a new process, in a session of its own, go on with the run. Raises: RetryLaterError.

    A hang-up of the terminal does not reach it; what it prints goes into the run's `stderr.log`.

    Args:
        on_event: the user's command for alerts, which the new process runs from then on.
    """
    words = ["train", run.stage, "--resume", run.name]
    return _in_own_session(words, run.folder.parents[2], run.folder / "stderr.log", run.name, on_event)


def work_off_detached(queue: QueueFile, on_event: str = "") -> "subprocess.Popen[bytes]":
    """Let a new process, in a session of its own, go on with the queue. Raises: RetryLaterError.

    What it prints goes into `queue.log` beside the queue. `on_event` is as for `train_detached`.
    """
    log = queue.path.with_suffix(".log")
    return _in_own_session(["queue", "run"], queue.store.root, log, "the queue", on_event)


def _in_own_session(
    words: list[str], root: Path, log: Path, what: str, on_event: str
) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-P", "-c", _BEGIN, str(_HOME), *words, "--root", str(root)]
    try:
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, ON_EVENT: on_event},
            )
    except OSError as error:
        raise RetryLaterError(
            f"No process could be started for {what}: {error.strerror or error}.",
            "Its checkpoint stands: resume it here, or later.",
        ) from None
