"""The chart draws whatever a run can bring: spikes, gaps, marks, nothing at all."""

import math
import re

import pytest
from textual_plotext import Plot

from core.events import (
    LearningRateChanged,
    NonFiniteMet,
    NoteAdded,
    SchedulePlanned,
    TrainMeasured,
    Validated,
    ValidationIntervalChanged,
)
from core.series import RunSeries
from tui import chart
from tui.chart import Paint, View
from tui.shown import curves_of

PAINT = Paint("default", "default", "default", "default", "default")


def measured(step: int, loss: float) -> TrainMeasured:
    return TrainMeasured(
        step=step, tokens=step * 1000, loss=loss, learning_rate=1e-3, grad_norm=0.4, tokens_per_s=5000.0
    )


def validated(step: int, loss: float) -> Validated:
    return Validated(step=step, tokens=step * 1000, loss=loss, bits_per_byte=1.0, elapsed_s=0.5)


def a_run(steps: int = 300) -> RunSeries:
    series = RunSeries()
    for step in range(1, steps + 1):
        series.feed(measured(step, 3 + 5 * math.exp(-step / 60)))
        if step % 20 == 0:
            series.feed(validated(step, 3.2 + 5 * math.exp(-step / 60)))
    return series


def drawn(series: RunSeries, view: View | None = None, size: tuple[int, int] = (80, 15)) -> str:
    view = view or View()
    text = chart.draw(Plot(), curves_of(series, view, PAINT), series.shown_marks, view, PAINT, size)
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def dots(text: str) -> int:
    return sum(0x2801 <= ord(c) <= 0x28FF for c in text)


def test_train_and_validation_differ_by_marker() -> None:
    """Without colour the two curves are still told apart."""
    text = drawn(a_run())
    assert dots(text) > 40
    assert text.count("●") >= 8


@pytest.mark.parametrize("size", [(60, 8), (80, 15), (200, 50), (16, 4)])
@pytest.mark.parametrize("view", [View(), View(is_log=True), View(zoom=0.2, smoothing=0.9)])
def test_it_has_exactly_the_size_it_was_given(size: tuple[int, int], view: View) -> None:
    """Rows and columns hold at every size and view, so that nothing on the screen is pushed away."""
    lines = drawn(a_run(), view, size).splitlines()
    assert len(lines) == size[1]
    assert all(len(line) == size[0] for line in lines)


def test_too_little_room_or_nothing_to_draw_gives_an_empty_text() -> None:
    """No exception at sizes that a terminal passes through while it is resized."""
    for size in [(0, 0), (1, 1), (15, 20), (80, 3)]:
        assert drawn(a_run(), size=size) == ""
    assert drawn(RunSeries()) == ""


def test_values_that_are_no_numbers_become_marks() -> None:
    """A NaN or an infinite loss is noted on the chart, and the curve goes on."""
    series = a_run(100)
    for step, loss in enumerate([math.nan, math.inf, -math.inf], 101):
        series.feed(measured(step, loss))
        series.feed(NonFiniteMet(step=step, what="loss"))
    series.feed(measured(104, 4.0))
    for view in (View(), View(is_log=True), View(smoothing=0.6)):
        text = drawn(series, view)
        assert "not finite" in text
        assert dots(text) > 20


def test_only_numbers_that_are_none_draw_nothing() -> None:
    """A run whose every loss is NaN leaves the empty text to the widget."""
    series = RunSeries()
    for step in range(1, 9):
        series.feed(measured(step, math.nan))
    assert drawn(series) == ""


@pytest.mark.parametrize("loss", [0.0, -1.0, 1e30, 1e-30])
def test_extreme_values_are_drawn(loss: float) -> None:
    """Zero on a logarithmic axis and numbers of any size raise nothing and cost no time."""
    series = a_run(50)
    series.feed(measured(51, loss))
    for view in (View(), View(is_log=True)):
        assert len(drawn(series, view).splitlines()) == 15


def test_one_point_is_drawn() -> None:
    """The first validation, before any step, stands on the chart."""
    series = RunSeries()
    series.feed(validated(0, 8.3))
    text = drawn(series)
    assert "●" in text and "-1.0" not in text and "0.5" not in text


def test_a_spike_stays_visible_and_does_not_flatten_the_rest() -> None:
    """One bad step among thousands shows, and the other values keep most of the height."""
    series = a_run(4000)
    series.train.values[2000] = 500.0
    lines = drawn(series).splitlines()
    assert any(0x2801 <= ord(c) <= 0x28FF for c in lines[0])
    assert sum(dots(line) > 0 for line in lines[3:]) >= 6


def test_rate_changes_are_labelled_lines() -> None:
    """A change of the rate stands on the chart in words, also when two lie close together and at the end."""
    series = a_run()
    for step in (100, 104, 300):
        series.feed(
            LearningRateChanged(step=step, tokens=step * 1000, before=1e-3, after=5e-4, multiplier=0.5)
        )
    text = drawn(series)
    assert text.count("rate ×½") == 3
    assert text.count("┊") > 15


def test_a_note_is_a_label_that_cannot_break_the_chart() -> None:
    """Whatever someone wrote down, its mark is one short line of single columns."""
    series = a_run()
    series.feed(NoteAdded(step=100, tokens=100_000, text="new\x1b[2J data 打球 " + "long " * 50))
    text = drawn(series)
    assert "new␛[2J data" in text and "打" not in text and "…" in text
    assert {len(line) for line in text.splitlines()} == {len(drawn(a_run()).splitlines()[0])}


def test_a_plan_and_an_interval_are_labelled() -> None:
    series = a_run()
    series.feed(
        SchedulePlanned(
            step=100,
            tokens=100_000,
            shape="cosine",
            rate=1e-3,
            final_rate=0.0,
            until_step=400,
            steps=400,
        )
    )
    series.feed(ValidationIntervalChanged(step=200, tokens=200_000, before=50, after=10))
    assert "cosine → 0" in drawn(series) and "val. every 10" in drawn(series)


def test_x_labels_are_tokens_in_one_unit() -> None:
    """Labels such as 0.5M tell the tokens seen, and neighbours differ."""
    labels = [text for _, text in chart.x_ticks((0, 2_400_000), 5)]
    assert labels[:3] == ["0", "0.5M", "1.0M"]
    zoomed = [text for _, text in chart.x_ticks((2_350_000, 2_400_000), 5)]
    assert len(set(zoomed)) == len(zoomed) >= 3


def test_zoom_shows_the_latest_part() -> None:
    """The latest fifth begins at four fifths of the tokens."""
    assert "0.30M" in drawn(a_run(), View(zoom=0.2)) or "300k" in drawn(a_run(), View(zoom=0.2))
    assert not re.search(r"(?m)^ +0 ", drawn(a_run(), View(zoom=0.2)).splitlines()[-1])


def test_a_long_run_is_drawn_in_time() -> None:
    """Redrawing 20,000 steps stays far below the time between two redraws."""
    import time

    series = a_run(20_000)
    began_at = time.perf_counter()
    drawn(series, size=(120, 30))
    assert time.perf_counter() - began_at < 0.25
