"""Bars of text: each with its name and its value, told apart by glyph as well as by place."""

from collections.abc import Sequence
from dataclasses import dataclass

from textual.content import Content
from textual.widgets import Static

from tui.clean import clean_line

FULL, SHADED = "█", "▒"
_PARTS = " ▏▎▍▌▋▊▉"
_GROUP_WIDTH, _NAME_WIDTH = 18, 10
_NARROW_GROUP_WIDTH = 9
_LEAST_BAR = 8


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar. Bars of one group stand together; the group is named once."""

    group: str
    name: str
    value: float
    text: str
    """The value as it is written behind the bar."""
    is_shaded: bool = False


def bar_lines(bars: Sequence[Bar], width: int) -> list[str]:
    """A line for each bar, at most `width` columns; the longest bar is the largest value."""
    if not bars:
        return []
    group_width = _GROUP_WIDTH if width >= 60 else _NARROW_GROUP_WIDTH
    value_width = max(len(bar.text) for bar in bars)
    room = max(_LEAST_BAR, width - group_width - _NAME_WIDTH - value_width - 3)
    largest = max((bar.value for bar in bars if bar.value > 0), default=1.0)
    lines, group = [], None
    for bar in bars:
        heading = clean_line(bar.group, group_width) if bar.group != group else ""
        group = bar.group
        name = clean_line(bar.name, _NAME_WIDTH)
        drawn = _drawn(max(0.0, bar.value) / largest * room, bar.is_shaded)
        lines.append(f"{heading:<{group_width}} {name:<{_NAME_WIDTH}} {drawn} {bar.text}")
    return lines


def _drawn(cells: float, is_shaded: bool) -> str:
    if is_shaded:
        return SHADED * round(cells)
    eighths = round(cells * 8)
    return FULL * (eighths // 8) + _PARTS[eighths % 8].strip()


class BarChart(Static):
    """Bars as wide as the widget."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.bars: Sequence[Bar] = ()

    def show(self, bars: Sequence[Bar]) -> None:
        """Draw these bars instead."""
        self.bars = bars
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        lines = bar_lines(self.bars, max(20, self.size.width))
        self.update(Content("\n".join(lines)))
