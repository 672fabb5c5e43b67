"""Curves and marks become a drawing of text. Nothing in here knows a widget; plotext does the dots."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.cells import cell_len

from core.series import Mark, Numbers, binned, smooth, thin
from tui import braille
from tui.clean import clean_line
from tui.figures import count_text

Color = tuple[int, int, int] | str
"""Red, green, blue; or "default", the terminal's own."""

SMOOTHINGS = (0.0, 0.6, 0.9)
ZOOMS = (1.0, 0.5, 0.2)
"""Shares of the x axis that are shown, counted from its latest end."""

TRAIN_MARKER, VALIDATION_MARKER = "braille", "●"
_BINS_PER_COLUMN = 4
_LEAST_ROOM = 1e-9
_MAX_LABEL_ROWS = 3
_LONGEST_LABEL = 24
_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of the chart. Lines are told apart by marker as well as by colour."""

    xs: Numbers
    ys: Numbers
    color: Color
    marker: str = TRAIN_MARKER
    is_joined: bool = True
    """Whether its points are joined by lines."""
    smoothing: float = 0.0
    """Share of the past in each point drawn, 0 to below 1."""
    is_ghost: bool = False
    """Whether it belongs to another run: it widens no axis but the height, and that by half at most."""


@dataclass(frozen=True, slots=True)
class View:
    """What the user asked to see of the curves."""

    is_log: bool = False
    zoom: float = 1.0
    smoothing: float = 0.0
    shows: str = "loss"
    """A name that `shown.choices_of` gives."""


@dataclass(frozen=True, slots=True)
class Paint:
    """The theme's colours for the chart's parts."""

    background: Color
    axis: Color
    train: Color
    validation: Color
    mark: Color
    ghost: Color = "default"


def next_of(choices: Sequence[float], now: float) -> float:
    """The choice after this one, the first after the last."""
    return choices[(choices.index(now) + 1) % len(choices)] if now in choices else choices[0]


def draw(
    plt: Any, curves: Sequence[Curve], marks: Sequence[Mark], view: View, paint: Paint, size: tuple[int, int]
) -> str:
    """The chart as lines of text with colour codes; an empty text where there is nothing to draw or no room.

    Args:
        plt: a plotext figure (textual_plotext's Plot).
        curves: drawn in this order, the last one on top; their common x range is the x axis.
        size: columns and rows.
    """
    width, height = size
    span = _x_span(curves, view.zoom)
    if span is None or width < 16 or height < 4:
        return ""
    shown = [_prepare(curve, span, width, view.is_log) for curve in curves]
    limits = _y_limits(shown)
    if limits is None:
        return ""
    plt.clear_figure()
    plt.plotsize(width, height)
    plt._set_size(width, height)
    plt.canvas_color(paint.background)
    plt.axes_color(paint.background)
    plt.ticks_color(paint.axis)
    plt.xaxes(True, False)
    plt.yaxes(True, False)
    labels = _y_ticks(limits, view.is_log, max(2, height // 3))
    canvas = max(2, width - 1 - max(len(text) for _, text in labels))
    plt.xlim(*span)
    plt.ylim(*limits)
    plt.yticks([y for y, _ in labels], [text for _, text in labels])
    ticks = x_ticks(span, max(2, canvas // 14))
    plt.xticks([x for x, _ in ticks], [text for _, text in ticks])
    _draw_marks(
        plt, [m for m in marks if span[0] <= m.tokens <= span[1]], span, limits, (canvas, height - 2), paint
    )
    for curve in shown:
        points = list(zip(curve.xs, curve.ys, strict=True))
        if curve.is_ghost:
            points = [(x, y) for x, y in points if limits[0] <= y <= limits[1]]
        if points:
            # A loss far out of range sits on the border: plotext would follow its line to the end of the world.
            ys = [min(max(y, limits[0]), limits[1]) for _, y in points]
            xs, marker = [x for x, _ in points], curve.marker
            if curve.is_joined and len(ys) > 1:
                xs, ys, marker = braille.cells(xs, ys, span, limits, (canvas, height - 2))
            plt.scatter(xs, ys, marker=marker, color=curve.color)
    if not any(len(curve.xs) for curve in shown):
        return ""
    return plt.build()


# ---------------------------------------------------------------- ranges


def _x_span(curves: Sequence[Curve], zoom: float) -> tuple[float, float] | None:
    ends = [(curve.xs[0], curve.xs[-1]) for curve in curves if len(curve.xs) and not curve.is_ghost]
    if not ends:
        return None
    low, high = min(first for first, _ in ends), max(last for _, last in ends)
    if zoom < 1:
        low = high - (high - low) * zoom
    elif low <= high / 2:
        # From nothing seen on, where that costs less than half of the width.
        low = 0.0
    # A single point stands at the left: more will come behind it.
    return (low, high) if high > low else (low, low + 1.0)


def _prepare(curve: Curve, span: tuple[float, float], width: int, is_log: bool) -> Curve:
    """The curve's points inside the span, smoothed and thinned to the width, on the axis's scale."""
    import numpy as np

    xs, ys = np.asarray(curve.xs, dtype=float), np.asarray(curve.ys, dtype=float)
    inside = (xs >= span[0]) & (xs <= span[1])
    points_x, points_y = xs[inside], ys[inside]
    if curve.smoothing:
        # An average over single steps would show nothing of a run that has thousands of them in a column.
        points_x, points_y = binned(points_x, points_y, _BINS_PER_COLUMN * width)
        points_y = smooth(points_y, curve.smoothing)
    columns = width if curve.is_joined else max(1, width // 6)
    thin_x, thin_y = thin(points_x, points_y, columns)
    if is_log:
        lowest = min((y for y in thin_y if y > 0), default=1.0)
        thin_y = [math.log10(max(y, lowest)) for y in thin_y]
    return replace(curve, xs=thin_x, ys=thin_y, smoothing=0.0)


def _y_limits(curves: Sequence[Curve]) -> tuple[float, float] | None:
    """The range that shows the curves well: all of it, save a spike far above the rest."""
    own = [curve for curve in curves if not curve.is_ghost]
    values = sorted(y for curve in own for y in curve.ys)
    if not values:
        return None
    low, high = values[0], values[-1]
    usual = values[int(0.98 * (len(values) - 1))]
    first = max((curve.ys[0] for curve in own if len(curve.ys)), default=high)
    ceiling = max(usual, first, low) + 0.5 * (max(usual, first) - low)
    if ceiling > low:
        high = min(high, ceiling)
    others = [y for curve in curves if curve.is_ghost for y in curve.ys]
    if others:
        half = (high - low) / 2
        low, high = min(low, max(min(others), low - half)), max(high, min(max(others), high + half))
    room = (high - low) * 0.04 or max(abs(high) * 0.05, _LEAST_ROOM)
    return low - room, high + room


# ---------------------------------------------------------------- ticks


def x_ticks(span: tuple[float, float], count: int) -> list[tuple[float, str]]:
    """About `count` round places on the x axis with their labels in one unit: 0, 0.5M, 1.0M."""
    # There is nothing between one token and the next.
    places = [place for place in _round_places(*span, count) if place == round(place)]
    step = places[1] - places[0] if len(places) > 1 else span[1]
    unit, suffix = next(((u, s) for u, s in _UNITS if span[1] >= u), (1.0, ""))
    decimals = _decimals(step / unit)
    return [(x, "0" if x == 0 else f"{x / unit:.{decimals}f}{suffix}") for x in places]


def _y_ticks(limits: tuple[float, float], is_log: bool, count: int) -> list[tuple[float, str]]:
    if is_log:
        low, high = 10 ** limits[0], 10 ** limits[1]
        places = [m * 10.0**e for e in range(-12, 13) for m in (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)]
        places = [y for y in places if low <= y <= high]
        if len(places) < 2:
            places = _round_places(low, high, count)
        while len(places) > count + 1:
            places = places[::2]
        ticks = [(math.log10(y), f"{y:g}" if len(f"{y:g}") < 7 else f"{y:.2g}") for y in places if y > 0]
    else:
        places = _round_places(*limits, count)
        step = places[1] - places[0] if len(places) > 1 else 1.0
        decimals = _decimals(step)
        ticks = [(y, _tick_text(y, decimals, limits[1])) for y in places]
    return ticks or [(limits[0], f"{limits[0]:.3g}")]


def _tick_text(y: float, decimals: int, high: float) -> str:
    if abs(y) >= 1e4:
        return count_text(y)
    # Six places tell small rates apart no more.
    return f"{y:.2g}" if 0 < high < 1e-3 and y else f"{y:.{decimals}f}"


def _decimals(step: float) -> int:
    """Decimal places that tell neighbours apart which lie this far from one another."""
    return min(6, max(0, math.ceil(-math.log10(step) - 1e-9))) if step > 0 else 2


def _round_places(low: float, high: float, count: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten inside the range, about `count` of them."""
    width = (high - low) / max(1, count)
    if not math.isfinite(width) or width <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(width))
    step = next((power * m for m in (1, 2, 5) if power * m >= width * 0.999), power * 10)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, first + 4 * count + 4) if i * step <= high + step * 1e-9]


# ---------------------------------------------------------------- marks


def _draw_marks(
    plt: Any,
    marks: Sequence[Mark],
    span: tuple[float, float],
    limits: tuple[float, float],
    canvas: tuple[int, int],
    paint: Paint,
) -> None:
    """Upright lines with labels beside them; labels that would collide go a row down, or are left out."""
    columns, rows = canvas
    taken: list[list[tuple[int, int]]] = [[] for _ in range(max(1, min(_MAX_LABEL_ROWS, rows - 2)))]
    # The latest mark matters most, so it chooses its place first.
    for mark in reversed(marks):
        share = (mark.tokens - span[0]) / (span[1] - span[0])
        plt.plot([mark.tokens] * 2, list(limits), marker="┊", color=paint.mark)
        column = int(0.5 + (columns - 1) * share)
        # A character two columns wide would push the rest of its row along.
        label = "".join(c if cell_len(c) == 1 else "·" for c in clean_line(mark.label, _LONGEST_LABEL))
        start = column + 1 if column + 1 + len(label) <= columns else column - len(label)
        if start < 0:
            continue
        end = start + len(label)
        row = next((r for r, used in enumerate(taken) if all(end < a or b < start for a, b in used)), None)
        if row is None:
            continue
        taken[row].append((start, end))
        x = span[0] + start / max(1, columns - 1) * (span[1] - span[0])
        y = limits[1] - row / max(1, rows - 1) * (limits[1] - limits[0])
        plt.text(label, x, y, color=paint.mark, alignment="left")
