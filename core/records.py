"""Records of a run's logs, each to and from one JSON line.

A line holds the kind (`event` or `command`), `at` (ISO time, UTC) and the fields. Floats are written with the
shortest text that reads back to the same bits; the three values JSON lacks are written as "nan", "inf", "-inf".
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_type_hints

Kind = TypeVar("Kind", bound="Record")

_BEGINNING = b'{"event":"'
_KIND_AT = len(_BEGINNING)
_SPECIAL_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What events and commands have in common: one line of JSON each."""

    kind_key: ClassVar[str]

    def to_line(self, at: str | None = None) -> str:
        """The record as one JSON line, without the newline."""
        return json.dumps(
            self.to_row(at=at or now()), ensure_ascii=False, allow_nan=False, separators=(",", ":")
        )

    def to_row(self, **more: str) -> dict[str, Any]:
        """The record as plain JSON values: its kind, `more`, its fields."""
        row: dict[str, Any] = {self.kind_key: type(self).__name__, **more}
        for field in fields(self):
            row[field.name] = _encode(getattr(self, field.name))
        return row


class Reader(Generic[Kind]):
    """Reads records back, of the kinds that are direct subclasses of the one given."""

    def __init__(self, base: type[Kind]) -> None:
        self._key = base.kind_key
        self._kinds = {kind.__name__: kind for kind in base.__subclasses__()}
        self._hints: dict[type[Kind], list[tuple[str, Any]]] = {}
        for kind in self._kinds.values():
            hints = get_type_hints(kind)
            self._hints[kind] = [(field.name, hints[field.name]) for field in fields(kind)]

    def from_line(self, line: str | bytes) -> Kind | None:
        """The record on a line, or None for a line that holds none: torn, garbage, or of a newer version."""
        try:
            return self.from_row(json.loads(line))
        except (ValueError, RecursionError):
            return None

    def from_row(self, row: Any) -> Kind | None:
        """The record that `to_row` wrote, or None for anything else."""
        try:
            kind = self._kinds[row[self._key]]
            values = {}
            for name, hint in self._hints[kind]:
                if name in row:
                    values[name] = _decode(row[name], hint)
            return kind(**values)
        # A log may have been cut in mid-write or written by a newer version: such lines are passed over, never fatal.
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None


def now() -> str:
    """The present instant in UTC as ISO text, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def instant_of_line(line: str | bytes) -> str:
    """The `at` of a line, or an empty text."""
    try:
        return str(json.loads(line).get("at", ""))
    except (ValueError, AttributeError, RecursionError):
        return ""


def kind_of_line(line: bytes) -> bytes:
    """The event that a line of ours names at its beginning, found without parsing it; empty for any other line."""
    return line[_KIND_AT : line.find(b'"', _KIND_AT)] if line.startswith(_BEGINNING) else b""


def _encode(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, str):
        # A lone surrogate cannot be written as UTF-8.
        return value.encode("utf-8", "replace").decode("utf-8")
    return value


_CHECKS: dict[type, Callable[[Any], bool]] = {
    # A count past 64 bits is garbage, and a chart could not divide it.
    int: lambda value: isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63,
    bool: lambda value: isinstance(value, bool),
    str: lambda value: isinstance(value, str),
}


def _decode(value: Any, hint: Any) -> Any:
    if hint is float:
        if isinstance(value, str):
            return _SPECIAL_FLOATS[value]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError
        return float(value)
    kind = hint if isinstance(hint, type) else get_args(hint)[0]
    if not _CHECKS[kind](value):
        raise TypeError
    return value
