"""The real program in a terminal of its own: keys go in, bytes come out, and how it leaves the terminal can be told."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

from core.events import CheckpointSaved, RunEnded, TrainMeasured
from core.runs import Run

_MODE = re.compile(rb"\x1b\[\?(\d+)([hl])")
_ALTERNATE_SCREEN, _CURSOR, _LINE_WRAP = 1049, 25, 7
_MOUSE_PASTE_AND_FOCUS = (1000, 1003, 1006, 1015, 2004, 1004)


class PseudoTerminal:
    """`bbtui` in a pseudo-terminal.

    Args:
        root: the folder that holds `checkpoints/`.
        patch: Python that is run before the program begins.
        is_controlling: closing the terminal sends a hang-up, as a real one does; its settings cannot be read after.
    """

    def __init__(
        self,
        root: Path,
        patch: str = "",
        *,
        size: tuple[int, int] = (80, 24),
        is_controlling: bool = False,
        arguments: tuple[str, ...] = ("--preset", "smoke"),
        **environment: str,
    ) -> None:
        self._leader, self._follower = pty.openpty()
        self._is_closed = False
        self.resize(*size, is_first=True)
        self.settings_before = termios.tcgetattr(self._follower)
        code = f"{patch}\nfrom tui.cli import main\nmain()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments, "--root", str(root)],
            stdin=self._follower,
            stdout=self._follower,
            stderr=self._follower,
            env={**os.environ, "TERM": "xterm-256color", "OMP_NUM_THREADS": "1", **environment},
            start_new_session=True,
            preexec_fn=(lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) if is_controlling else None,
        )
        self._written = bytearray()
        self._pressed_at = 0
        self._arrivals: list[tuple[float, int]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "PseudoTerminal":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.close()

    def _read(self) -> None:
        # Never asleep in a read: the terminal would outlive its closing.
        with contextlib.suppress(OSError):
            while not self._is_closed:
                if select.select([self._leader], [], [], 0.02)[0]:
                    self._written += os.read(self._leader, 65536)
                    self._arrivals.append((time.perf_counter(), len(self._written)))

    @property
    def written(self) -> bytes:
        """Every byte that the program has written to the terminal so far."""
        return bytes(self._written)

    # ------------------------------------------------------------ what a person does

    def press(self, *keys: str) -> None:
        """Type these texts, one after the other."""
        self._pressed_at = len(self._written)
        for key in keys:
            os.write(self._leader, key.encode())

    def resize(self, columns: int, rows: int, is_first: bool = False) -> None:
        fcntl.ioctl(self._leader, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if not is_first:
            self.process.send_signal(signal.SIGWINCH)

    def close(self) -> None:
        """Close the window: nothing can be read or written any more."""
        if not self._is_closed:
            self._is_closed = True
            self._reader.join()
            os.close(self._follower)
            os.close(self._leader)

    # ------------------------------------------------------------ what a person sees

    def until(self, holds: Callable[[], object], seconds: float = 60) -> None:
        """Wait for a state. Raises: AssertionError when it does not come, or the program ends before."""
        deadline = time.monotonic() + seconds
        while not holds():
            ended = self.process.poll() is not None
            assert not ended or holds(), f"it ended with {self.process.returncode}: {self.written[-2000:]!r}"
            assert time.monotonic() < deadline, f"it did not come: {self.written[-2000:]!r}"
            time.sleep(0.01)

    def until_shown(self, *words: str, seconds: float = 60) -> None:
        """Wait until all of these have been drawn since the last key."""
        self.until(
            lambda: all(self._written.find(word.encode(), self._pressed_at) >= 0 for word in words), seconds
        )

    def arrival(self, words: str) -> float:
        """When the read came, by `time.perf_counter`, that completed what has been drawn since the last key."""
        self.until_shown(words)
        end = self._written.find(words.encode(), self._pressed_at) + len(words.encode())
        return next(at for at, size in self._arrivals if size >= end)

    def exit_code(self, seconds: float = 10) -> int:
        """The program's exit code, once everything that it wrote has been read."""
        code = self.process.wait(seconds)
        if not self._is_closed:
            last = -1
            while last != len(self._written):
                last = len(self._written)
                time.sleep(0.05)
        return code

    def problems(self) -> list[str]:
        """What is wrong with the terminal now that the program has left it; nothing, if it can be used."""
        modes = {int(number): kind == b"h" for number, kind in _MODE.findall(self.written)}
        found = [f"mode {number} is on" for number in _MOUSE_PASTE_AND_FOCUS if modes.get(number)]
        if modes.get(_ALTERNATE_SCREEN):
            found.append("the alternate screen was not left")
        found += [f"mode {number} is off" for number in (_CURSOR, _LINE_WRAP) if not modes.get(number, True)]
        if self.written.count(b"\x1b[>") != self.written.count(b"\x1b[<u"):
            found.append("the keyboard protocol was not popped")
        if termios.tcgetattr(self._follower) != self.settings_before:
            found.append("the line's settings were not put back")
        if b"Traceback" in self.written or b"\xe2\x95\xad" in self.written.rpartition(b"\x1b[?1049l")[2]:
            found.append("a traceback was printed")
        return found


def last_step(run: Run) -> int:
    """The last step that the run's log has as measured."""
    return max((e.step for e in run.events() if isinstance(e, TrainMeasured)), default=0)


def saved_step(run: Run) -> int:
    """The step of the checkpoint that was written last."""
    return max((e.step for e in run.events() if isinstance(e, CheckpointSaved)), default=0)


def reasons(run: Run) -> list[str]:
    """Why the run ended, each time that it did."""
    return [event.reason for event in run.events() if isinstance(event, RunEnded)]
