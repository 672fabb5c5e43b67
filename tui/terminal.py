"""The terminal itself: descriptor 2 kept off the screen, and what makes it show a notification on the desktop.

C code that writes a warning to descriptor 2 would land in the middle of the screen.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tui.clean import clean_line

_NOTIFICATION_CHARACTERS = 160
_screen_has_own_descriptor = False


class _Screen(io.TextIOWrapper):
    """A text stream that outlives its terminal: Textual waits for ever on a writer that has died."""

    def write(self, text: str, /) -> int:
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


def has_terminal() -> bool:
    """Whether standard input is a terminal that is still there; after a hang-up it is not."""
    return sys.__stdin__ is not None and os.isatty(sys.__stdin__.fileno())


@contextlib.contextmanager
def screen_on_own_descriptor(log: Path) -> Iterator[None]:
    """Give the screen a descriptor of its own, and send what else is written to descriptor 2 into a file.

    Textual draws on `sys.__stderr__`. Where descriptor 2 is no terminal, nothing is changed.
    """
    global _screen_has_own_descriptor
    stream = sys.__stderr__
    try:
        if stream is None or not os.isatty(2):
            raise OSError
        log.parent.mkdir(parents=True, exist_ok=True)
        own, original = os.dup(2), os.dup(2)
        screen = _Screen(os.fdopen(own, "wb"), encoding="utf-8", errors="replace", line_buffering=True)
        _point_stderr_at(log)
    except OSError:
        yield
        return
    sys.__stderr__ = sys.stderr = screen  # type: ignore[misc]
    _screen_has_own_descriptor = True
    try:
        yield
    finally:
        _screen_has_own_descriptor = False
        sys.__stderr__ = sys.stderr = stream  # type: ignore[misc]
        with contextlib.suppress(OSError):
            screen.close()
        os.dup2(original, 2)
        os.close(original)


@contextlib.contextmanager
def stderr_into(path: Path) -> Iterator[None]:
    """While it lasts, what is written to descriptor 2 goes to the end of that file, if the screen is safe."""
    if not _screen_has_own_descriptor:
        yield
        return
    before = os.dup(2)
    try:
        with contextlib.suppress(OSError):
            _point_stderr_at(path)
        yield
    finally:
        # The app may have given descriptor 2 back to the terminal in the meantime.
        if _screen_has_own_descriptor:
            os.dup2(before, 2)
        os.close(before)


def _point_stderr_at(path: Path) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 2)
    os.close(handle)


def desktop_notification(text: str, surroundings: Mapping[str, str]) -> str:
    """What has the terminal show a notification on the desktop (OSC 9), or an empty text where it would draw it.

    A `;` would make it another command in some terminals, and control characters would end it. tmux passes it on
    (if its `allow-passthrough` is on) in an envelope of its own, every ESC doubled.

    Args:
        surroundings: the environment variables, which tell the terminal.
    """
    kind = surroundings.get("TERM", "")
    if kind in ("linux", "dumb", ""):
        return ""
    words = clean_line(text, _NOTIFICATION_CHARACTERS).replace(";", ",")
    sequence = f"\x1b]9;bbtui: {words}\a"
    if surroundings.get("TMUX") or kind.startswith("tmux"):
        return f"\x1bPtmux;{sequence.replace(chr(27), chr(27) * 2)}\x1b\\"
    return sequence
