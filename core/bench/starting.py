"""Start-up: seconds until a command has ended, or until it has drawn its first screen. Loads without torch."""

import os
import subprocess
import time
from collections.abc import Callable, Sequence

from core.bench.process import HOME
from core.errors import BbtuiError

_SIZE = (100, 30)
_LONGEST_S = 60.0


def until_ended(command: Sequence[str]) -> float:
    """Seconds that a command takes. Raises: BbtuiError where it fails."""
    started_s = time.perf_counter()
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LONGEST_S, cwd=HOME
    )
    elapsed_s = time.perf_counter() - started_s
    if done.returncode:
        raise BbtuiError(f"{command[-1]}: it ended with {done.returncode}.")
    return elapsed_s


def until_painted(command: Sequence[str], words: str) -> float:
    """Seconds until the command has drawn these words in a terminal of its own; it is ended then.

    Raises: BbtuiError where they do not come, or the system has no pseudo-terminals.
    """
    try:
        import fcntl
        import pty
        import struct
        import termios
    except ImportError:
        raise BbtuiError("This system has no pseudo-terminals.") from None
    leader, follower = pty.openpty()
    try:
        fcntl.ioctl(leader, termios.TIOCSWINSZ, struct.pack("HHHH", _SIZE[1], _SIZE[0], 0, 0))
        started_s = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env={**os.environ, "TERM": "xterm-256color"},
            start_new_session=True,
            cwd=HOME,
        )
        try:
            return _until_read(leader, words.encode(), lambda: process.poll() is None) - started_s
        finally:
            process.kill()
            process.wait()
    finally:
        os.close(follower)
        os.close(leader)


def _until_read(leader: int, words: bytes, is_alive: Callable[[], bool]) -> float:
    """When the words had been read whole."""
    import select

    written = b""
    deadline_s = time.perf_counter() + _LONGEST_S
    while time.perf_counter() < deadline_s:
        if select.select([leader], [], [], 0.02)[0]:
            written += os.read(leader, 65536)
            if words in written:
                return time.perf_counter()
        elif not is_alive():
            break
    raise BbtuiError(f"The first screen did not come within {_LONGEST_S:.0f} s.")
