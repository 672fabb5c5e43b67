"""Protects the fast way to draw a curve: the same characters at the same places as plotext's own."""

import random
import re

import pytest
from textual_plotext import Plot

from tui import braille


def drawn(is_ours: bool, xs: list[float], ys: list[float], canvas: tuple[int, int]) -> str:
    plt = Plot()
    plt.clear_figure()
    plt.plotsize(*canvas)
    plt._set_size(*canvas)
    plt.xaxes(False, False)
    plt.yaxes(False, False)
    plt.xticks([])
    plt.yticks([])
    span, limits = (0.0, 100.0), (-1.0, 9.0)
    plt.xlim(*span)
    plt.ylim(*limits)
    if is_ours:
        xs, ys, markers = braille.cells(xs, ys, span, limits, canvas)
        plt.scatter(xs, ys, marker=markers)
    else:
        plt.plot(xs, ys, marker="braille")
    return re.sub(r"\x1b\[[0-9;]*m", "", plt.build())


@pytest.mark.parametrize("canvas", [(60, 10), (117, 26), (16, 4), (1, 1)])
@pytest.mark.parametrize("count", [2, 3, 40, 400])
def test_it_is_what_plotext_draws(canvas: tuple[int, int], count: int) -> None:
    """Level, steep and backward lines; where a slanted one falls between two dots, either may be taken."""
    draw = random.Random(count)
    xs = sorted(draw.uniform(0, 100) for _ in range(count))
    for ys in ([draw.uniform(-1, 9) for _ in xs], [4.0 for _ in xs], [x / 12 for x in xs]):
        ours, theirs = drawn(True, xs, ys, canvas), drawn(False, xs, ys, canvas)
        assert len(ours) == len(theirs)
        different = sum(a != b for a, b in zip(ours, theirs, strict=True))
        assert different <= 0.03 * len(ours) and ours.strip()


def test_one_dot_lights_one_dot() -> None:
    """The lowest left and the highest right dot stand where they belong."""
    xs, ys, markers = braille.cells([0.0, 100.0], [0.0, 0.0], (0.0, 100.0), (0.0, 1.0), (2, 1))
    assert (xs, ys, markers) == ([0.0, 100.0], [0.0, 0.0], ["⣀", "⣀"])
    _, _, corner = braille.cells([100.0, 100.0], [1.0, 1.0], (0.0, 100.0), (0.0, 1.0), (2, 1))
    assert corner == ["⠈"]
