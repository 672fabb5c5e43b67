"""Protects what is said of a change made by hand: the slopes before and after it, or that it is too early to tell."""

import math
import random

import pytest

from core.events import LearningRateChanged, NoteAdded, TrainMeasured, Validated
from core.series import Effect, Mark, RunSeries, effect_of
from tui.widgets.chart_notes import effect_words


def measured(step: int, loss: float) -> TrainMeasured:
    rates = {"learning_rate": 1e-3, "grad_norm": 1.0, "tokens_per_s": 1.0}
    return TrainMeasured(step=step, tokens=step * 1000, loss=loss, **rates)


def changed(step: int) -> LearningRateChanged:
    return LearningRateChanged(step=step, tokens=step * 1000, before=2.0, after=1.0, multiplier=1.0)


def test_the_slopes_are_those_of_the_curve_through_noise_and_gaps() -> None:
    """0.2 nats per million tokens before, half a nat after; a loss that is no number changes nothing."""
    draw, series = random.Random(3), RunSeries()
    for step in range(1, 2001):
        bend = 0.2e-6 * step * 1000 + (0.3e-6 * (step - 1000) * 1000 if step > 1000 else 0)
        series.feed(measured(step, math.nan if step % 97 == 0 else 5 - bend + draw.gauss(0, 0.01)))
        if step == 1000:
            series.feed(changed(step))
    effect = effect_of(series, series.marks[0])
    assert effect.before == pytest.approx(-0.2e-6, rel=0.05)
    assert effect.after == pytest.approx(-0.5e-6, rel=0.05)


def test_both_sides_reach_equally_far_and_not_past_another_change() -> None:
    """A cliff beyond the window, or beyond the change before, is no part of the slope."""
    series = RunSeries()
    for step in range(1, 501):
        # A cliff at 100, level until 300; the change at 300 is followed by 60 steps, then one at 360.
        series.feed(measured(step, (9.0 if step <= 230 else 4.0) - max(0, step - 300) * 0.001))
        if step in (300, 360):
            series.feed(changed(step))
    effect = effect_of(series, series.marks[0])
    assert effect.before == pytest.approx(0.0, abs=1e-12)
    assert effect.after == pytest.approx(-0.001 / 1000, rel=0.01)


def test_few_steps_tell_nothing() -> None:
    series = RunSeries()
    for step in range(1, 41):
        series.feed(measured(step, 5.0))
        if step == 30:
            series.feed(changed(step))
    effect = effect_of(series, series.marks[0])
    assert (effect.before, effect.after) == (None, None)
    assert effect_words(effect, 80) == "since rate ×½ at step 30: too early to tell"
    assert effect_of(RunSeries(), series.marks[0]).after is None


def test_a_curve_of_validations_alone_is_told_of_too() -> None:
    series = RunSeries()
    for step in range(200):
        loss = 5.0 - step * 0.01
        series.feed(Validated(step=step, tokens=step * 10, loss=loss, bits_per_byte=1.0, elapsed_s=0.0))
    series.feed(NoteAdded(step=100, tokens=1000, text="here"))
    effect = effect_of(series, series.marks_by_hand[0])
    assert effect.before == pytest.approx(-0.001) and effect.after == pytest.approx(-0.001)


@pytest.mark.parametrize(
    ("slopes", "words"),
    [
        ((-0.21e-6, -0.354e-6), "−0.21 before, −0.35 after, per 1M tokens"),
        ((-2e-3, 1e-4), "−2.00 before, +0.10 after, per 1k tokens"),
        ((-3e-9, 0.0), "−3.00 before, +0.00 after, per 1B tokens"),
    ],
)
def test_slopes_are_said_in_a_unit_that_shows_them(slopes: tuple[float, float], words: str) -> None:
    effect = Effect(Mark(412, 5, "rate ×½", "change"), *slopes)
    assert effect_words(effect, 80) == f"since rate ×½ at step 412: {words}"
    short = words.replace(" before, ", " → ").replace(" after, ", " ")
    assert effect_words(effect, 58) == f"since rate ×½: {short}"
