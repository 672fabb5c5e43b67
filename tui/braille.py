"""A curve as braille characters, eight dots each: what plotext would draw of it, in a fraction of the time."""

from collections.abc import Sequence
from typing import Any

_DOTS = ((0x40, 0x80), (0x04, 0x20), (0x02, 0x10), (0x01, 0x08))
"""Bits of a braille character by row from below and by column."""
_FIRST = 0x2800
_ROUNDING = 1e-9


def cells(
    xs: Sequence[float],
    ys: Sequence[float],
    span: tuple[float, float],
    limits: tuple[float, float],
    canvas: tuple[int, int],
) -> tuple[list[float], list[float], list[str]]:
    """The characters that a line through these points passes, with the places of their cells on the axes.

    Args:
        span: the x axis; limits: the y axis. The points lie inside.
        canvas: columns and rows.
    """
    import numpy as np

    columns, rows = canvas
    x = _places(xs, span, 2 * columns)
    y = _places(ys, limits, 4 * rows)
    # Between two points as many dots as the longer of their distances has.
    counts = np.maximum(np.abs(np.diff(x)), np.abs(np.diff(y))).clip(1)
    at = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    share = at / np.repeat(counts, counts)

    def between(places: Any) -> Any:
        steps = share * np.repeat(np.diff(places), counts)
        return np.append(np.floor(np.repeat(places[:-1], counts) + steps + _ROUNDING).astype(int), places[-1])

    dots_x, dots_y = between(x), between(y)
    characters = np.zeros((rows, columns), dtype=int)
    bits = np.array(_DOTS)[dots_y % 4, dots_x % 2]
    np.bitwise_or.at(characters, (dots_y // 4, dots_x // 2), bits)
    found_y, found_x = np.nonzero(characters)
    return (
        (span[0] + found_x * ((span[1] - span[0]) / max(1, columns - 1))).tolist(),
        (limits[0] + found_y * ((limits[1] - limits[0]) / max(1, rows - 1))).tolist(),
        [chr(_FIRST + bits) for bits in characters[found_y, found_x].tolist()],
    )


def _places(values: Sequence[float], ends: tuple[float, float], count: int) -> Any:
    """Which of so many dots between the ends each value falls on."""
    import numpy as np

    shares = (np.asarray(values, dtype=float) - ends[0]) / (ends[1] - ends[0])
    return np.floor(np.round(0.5 + (count - 1) * shares, 8)).astype(int).clip(0, count - 1)
