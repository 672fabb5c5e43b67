"""The user's own command, run when a run gives cause for word.

The command comes from the user alone: typed into the app, given with `--on-event`, or set in `BBTUI_ON_EVENT`.
It is never read from a preset, a run folder or anything else under the root: those are passed around.
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping

from core.errors import UsageError
from tui.alerts import Alert
from tui.clean import clean_line

ON_EVENT = "BBTUI_ON_EVENT"
LIMIT_S = 30.0
_MOST_AT_ONCE = 8


def has_own_command(process_id: int) -> bool:
    """Whether another process was started with a command for alerts, so that this one need not run one for it."""
    import psutil

    if process_id in (0, os.getpid()):
        return False
    try:
        process = psutil.Process(process_id)
        words = process.cmdline()
        return bool(process.environ().get(ON_EVENT)) or any(word.startswith("--on-event") for word in words)
    except (psutil.Error, OSError):
        return False


def words_of(command: str) -> list[str]:
    """The program and its arguments; no shell is asked. Raises: UsageError where it cannot be run."""
    try:
        words = shlex.split(command)
    except ValueError:
        raise UsageError("A quote in the alerts' command is not closed.", "Close it.") from None
    if words:
        words[0] = os.path.expanduser(words[0])  # noqa: PTH111  (a program's bare name is no path)
        if not shutil.which(words[0]):
            raise UsageError(
                f"There is no program {clean_line(words[0], 40)!r} for the alerts' command.",
                "Give its whole path. For a line of the shell: sh -c '…'.",
            )
    return words


class EventCommands:
    """Runs a command for each alert, each time in a thread of its own, so that nobody waits for it.

    Args:
        done: called in that thread at the end, with the problem in words or an empty text.
    """

    def __init__(self, done: Callable[[Alert, str], object]) -> None:
        self._done = done
        self._threads: list[threading.Thread] = []

    def run(self, command: str, alert: Alert) -> None:
        """Start it as the user typed it; its failure is told to `done` and is no exception."""
        if not command.strip():
            return
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if len(self._threads) >= _MOST_AT_ONCE:
            self._done(alert, f"{_MOST_AT_ONCE} alerts' commands run still; this one was left out.")
            return
        thread = threading.Thread(target=self._run, args=(command, alert), name="alert command", daemon=True)
        self._threads.append(thread)
        thread.start()

    def wait(self, seconds: float = LIMIT_S + 1.0) -> None:
        """Let what runs end, at most so long."""
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _run(self, command: str, alert: Alert) -> None:
        try:
            problem = _problem_of(words_of(command), alert)
        except UsageError as error:
            problem = error.what
        except (OSError, ValueError) as error:
            problem = f"The alerts' command could not be started: {clean_line(str(error), 60)}."
        self._done(alert, problem)


def _problem_of(words: list[str], alert: Alert) -> str:
    """Run it to its end; what went wrong, or an empty text."""
    facts: dict[str, str | int | float | None] = {
        "event": alert.kind,
        "run": clean_line(alert.run),
        "title": clean_line(alert.title),
        "text": clean_line(alert.text),
        "step": alert.step,
        "loss": alert.loss,
    }
    with tempfile.TemporaryFile() as errors:
        # A session of its own: Ctrl+C in the terminal is not meant for it, and it ends with all it started.
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=_surroundings(facts),
            start_new_session=True,
        )
        try:
            process.communicate(json.dumps(facts).encode() + b"\n", timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            _kill(process)
            return f"The alerts' command took longer than {LIMIT_S:.0f} s and was ended."
        if process.returncode == 0:
            return ""
        errors.seek(0)
        last = errors.read(4096).decode(errors="replace").strip().rpartition("\n")[2]
        return clean_line(f"The alerts' command ended with {process.returncode}. {last}", 100)


def _surroundings(facts: Mapping[str, str | int | float | None]) -> dict[str, str]:
    # Without the command itself: what it starts of ours must not alert in turn.
    surroundings = {name: value for name, value in os.environ.items() if name != ON_EVENT}
    for name, fact in facts.items():
        surroundings[f"BBTUI_{name.upper()}"] = "" if fact is None else str(fact)
    return surroundings


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
