"""Runs of like lines in a log, read at once as columns of numbers, so that the log of a run of days opens in a moment.

Only lines exactly as `Record.to_line` writes them are read this way. Any other line goes the careful way, one by one,
so that what counts as an event and what is dropped is the same.
"""

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, get_type_hints

from core.events import Event, Heartbeat, TrainMeasured, event_from_line

_KINDS: tuple[type[Event], ...] = (TrainMeasured, Heartbeat)
"""What a long log is made of. Events of different kinds among these may change places: no reader minds."""

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
    rows = _LINE.findall(block)
    careful = [at for at, row in enumerate(rows) if row[-1]]
    start = 0
    for at in careful:
        yield from _columns(rows[start:at])
        for line in rows[at][-1].splitlines():
            if line.strip():
                yield Logged(event_from_line(line), instant_of(line))
        start = at + 1
    yield from _columns(rows[start:])


def instant_of(line: bytes) -> float:
    """The line's `at` in seconds since 1970, or 0; found by its place, since parsing twice costs too much."""
    start = line.find(_AT) + len(_AT)
    return _instant(line[start : start + _AT_LENGTH])


def _instant(at: bytes) -> float:
    try:
        return datetime.fromisoformat(at.decode("ascii")).timestamp()
    except (ValueError, OverflowError, UnicodeDecodeError):
        return 0.0


def _columns(rows: list[tuple[bytes, ...]]) -> Iterator[Columns]:
    texts = list(zip(*rows, strict=True))
    for kind, first in _PLACES.items():
        if not texts or not any(texts[first]):
            continue
        mine = texts[first : first + 1 + len(_FIELDS[kind])]
        if not all(texts[first]):
            # The fields of a line of another kind are empty.
            mine = [list(filter(None, column)) for column in mine]
        values = {
            name: array(_TYPECODES[number], map(number, column))
            for (name, number), column in zip(_FIELDS[kind].items(), mine[1:], strict=True)
        }
        yield Columns(kind, values, mine[0])


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


_FIELDS: dict[type[Event], dict[str, Any]] = {kind: _fields_of(kind) for kind in _KINDS}
_PLACES: dict[type[Event], int] = {}
"""Which group of a matched line holds the instant of an event of that kind."""
for _kind in _KINDS:
    _PLACES[_kind] = sum(1 + len(_FIELDS[kind]) for kind in _PLACES)
_LINE = re.compile(b"^(?:%s|(.+))$" % b"|".join(map(_pattern_of, _KINDS)), re.MULTILINE)
