"""Logs of one JSON line a record: appended by one write, followed while they grow."""

import os
from collections.abc import Iterator
from pathlib import Path

from core.commands import Command, command_from_line
from core.errors import RetryLaterError
from core.events import Event, event_from_line
from core.log_columns import Columns, Logged, read_lines

_TAIL_BYTES = 1 << 18
_LONGEST_TAIL_BYTES = 1 << 24
_BEAT = b'{"event":"Heartbeat"'
_BLOCK_BYTES = 1 << 18


def append_line(path: Path, line: str) -> None:
    """One write to a file opened for appending: lines of several writers do not mix."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, line.encode() + b"\n")
        finally:
            os.close(handle)
    except OSError as error:
        raise RetryLaterError(
            f"Cannot write {path}: {error.strerror}.", "Free disk space, then resume the run."
        ) from None


def last_lines(path: Path) -> list[bytes]:
    """The lines at the end of a log, the first of them perhaps cut; none where it cannot be read.

    Of heartbeats only the newest is among them, if it is the last line: thousands may stand between two steps.
    """
    tail = _TAIL_BYTES
    try:
        with path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            while True:
                log.seek(max(0, size - tail))
                lines = log.read().splitlines()
                lines = [line for line in lines[:-1] if not line.startswith(_BEAT)] + lines[-1:]
                if tail >= min(size, _LONGEST_TAIL_BYTES) or sum(map(len, lines)) >= _TAIL_BYTES // 2:
                    return lines
                tail *= 4
    except OSError:
        return []


class Follower:
    """Reads what a log has gained since the last read; a line still being written is left for later."""

    def __init__(self, path: Path, from_end: bool = False) -> None:
        self.path = path
        self.offset = path.stat().st_size if from_end and path.is_file() else 0
        self.bad_lines = 0

    def blocks(self) -> Iterator[bytes]:
        """The whole lines that are new, as many at a time as fit a block: a log may be larger than memory."""
        try:
            size = self.path.stat().st_size
            if size < self.offset:  # the file was replaced
                self.offset = 0
            if size == self.offset:
                return
            log = self.path.open("rb")
        except FileNotFoundError:
            return
        with log:
            log.seek(self.offset)
            rest = b""
            while piece := log.read(_BLOCK_BYTES):
                rest += piece
                whole = rest.rfind(b"\n") + 1
                if whole:
                    self.offset += whole
                    yield rest[:whole]
                    rest = rest[whole:]

    def lines(self) -> list[bytes]:
        """The whole lines that are new."""
        return [line for block in self.blocks() for line in block.splitlines()]

    def read(self) -> Iterator[Columns | Logged]:
        """The new events, many of a kind at once where they can be; lines that hold none are counted in `bad_lines`."""
        for block in self.blocks():
            for found in read_lines(block):
                if isinstance(found, Logged) and found.event is None:
                    self.bad_lines += 1
                else:
                    yield found

    def events(self) -> list[Event]:
        """The new events; lines that hold none are counted in `bad_lines`."""
        return [event for event in map(event_from_line, self._text_lines()) if self._counted(event)]  # type: ignore[misc]

    def commands(self) -> list[Command]:
        """The new commands; lines that hold none are counted in `bad_lines`."""
        return [command for command in map(command_from_line, self._text_lines()) if self._counted(command)]  # type: ignore[misc]

    def _text_lines(self) -> list[bytes]:
        return [line for line in self.lines() if line.strip()]

    def _counted(self, record: object) -> bool:
        self.bad_lines += record is None
        return record is not None
