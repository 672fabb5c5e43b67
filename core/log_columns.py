"""Runs of like lines in a log, read at once as columns of numbers, so that the log of a run of days opens in a moment.

Only steps and heartbeats are, since a long log is made of them, and only lines exactly as `Record.to_line` writes them.
Any other line goes the careful way, one by one, so that what counts as an event and what is dropped is the same. Steps
and the heartbeats among them may change places: no reader minds.
"""

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, get_type_hints

from core.events import Event, Heartbeat, TrainMeasured, event_from_line

_AT = b'"at":"'
_AT_LENGTH = 29  # 2026-11-22T17:00:00.000+00:00
_AT_PATTERN = rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00)"
_NUMBER_PATTERNS = {
    # Eighteen digits stay below 64 bits; a longer one is looked at more closely.
    int: rb"(0|-?[1-9]\d{0,17})",
    float: rb"(-?(?:0|[1-9]\d{0,16})(?:\.\d+(?:e[-+]\d+)?|e[-+]\d+))",
}
_TYPECODES = {int: "q", float: "d"}


@dataclass(frozen=True, slots=True)
class Columns:
    """Many events of one kind: for each field a column of its values."""

    kind: type[Event]
    values: "dict[str, array[Any]]"
    ats: Sequence[bytes]
    """Their instants, as written."""

    def __len__(self) -> int:
        return len(self.ats)

    def event(self, place: int) -> Event:
        """One of them, as it was written."""
        return self.kind(**{name: column[place] for name, column in self.values.items()})

    def at_of(self, place: int) -> float:
        """The instant of one of them in seconds since 1970, 0 if unknown."""
        return _instant(self.ats[place])

    def part(self, begin: int, end: int) -> "Columns":
        """Those from one place up to another."""
        values = {name: column[begin:end] for name, column in self.values.items()}
        return Columns(self.kind, values, self.ats[begin:end])

    @property
    def earliest_at(self) -> float:
        """The earliest of their instants in seconds since 1970, 0 if none is known."""
        return _instant(min(self.ats)) or min(filter(None, map(_instant, self.ats)), default=0.0)

    @property
    def latest_at(self) -> float:
        """The latest of their instants in seconds since 1970, 0 if none is known."""
        # They are of one length and zone: the latest is the last in the order of texts, unless that is no date.
        return _instant(max(self.ats)) or max(map(_instant, self.ats))


@dataclass(frozen=True, slots=True)
class Logged:
    """One event and its instant in seconds since 1970, 0 if unknown; None for a line that holds no event."""

    event: Event | None
    at: float


def read_lines(block: bytes) -> Iterator[Columns | Logged]:
    """What whole lines of a log hold. Blank lines are passed over."""
    rows = _STEP_LINE.findall(block)
    beats: list[tuple[bytes, ...]] = []
    start = 0
    for at in [at for at, row in enumerate(rows) if row[-1]]:
        line = rows[at][-1]
        if beat := _BEAT_LINE.fullmatch(line):
            beats.append(beat.groups())
            continue
        yield from _columns(TrainMeasured, [row for row in rows[start:at] if row[0]])
        yield from _columns(Heartbeat, beats)
        beats, start = [], at + 1
        for part in line.splitlines():
            if part.strip():
                yield Logged(event_from_line(part), instant_of(part))
    yield from _columns(TrainMeasured, [row for row in rows[start:] if row[0]])
    yield from _columns(Heartbeat, beats)


def instant_of(line: bytes) -> float:
    """The line's `at` in seconds since 1970, or 0; found by its place, since parsing twice costs too much."""
    start = line.find(_AT) + len(_AT)
    return _instant(line[start : start + _AT_LENGTH])


def _instant(at: bytes) -> float:
    try:
        return datetime.fromisoformat(at.decode("ascii")).timestamp()
    except (ValueError, OverflowError, UnicodeDecodeError):
        return 0.0


def _columns(kind: type[Event], rows: list[tuple[bytes, ...]]) -> Iterator[Columns]:
    if rows:
        ats, *texts = zip(*rows, strict=True)
        # A step's row ends in the place of a line that holds none.
        values = {
            name: array(_TYPECODES[number], map(number, column))
            for (name, number), column in zip(_FIELDS[kind].items(), texts, strict=False)
        }
        yield Columns(kind, values, ats)


def _pattern_of(kind: type[Event]) -> bytes:
    """What matches a line of that kind, a group for its instant and for each of its fields."""
    numbers = b",".join(
        b'"%s":%s' % (name.encode(), _NUMBER_PATTERNS[number]) for name, number in _FIELDS[kind].items()
    )
    return b'\\{"%s":"%s",%s"%s",%s\\}' % (
        kind.kind_key.encode(),
        kind.__name__.encode(),
        _AT.removesuffix(b'"'),
        _AT_PATTERN,
        numbers,
    )


def _fields_of(kind: type[Event]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


_FIELDS: dict[type[Event], dict[str, Any]] = {kind: _fields_of(kind) for kind in (TrainMeasured, Heartbeat)}
_STEP_LINE = re.compile(b"^(?:%s|(.+))$" % _pattern_of(TrainMeasured), re.MULTILINE)
_BEAT_LINE = re.compile(_pattern_of(Heartbeat))
