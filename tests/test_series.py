"""Protects what charts draw: spikes survive thinning, points stay few, a resume leaves no step twice."""

import math

from hypothesis import given
from hypothesis import strategies as st

from core.events import (
    Event,
    LearningRateChanged,
    NonFiniteMet,
    RunStarted,
    SampleDrawn,
    TrainMeasured,
    Validated,
    Warned,
)
from core.series import RunSeries, factor_text, smooth, thin


def started(resumed_from_step: int) -> RunStarted:
    return RunStarted(
        run="r",
        stage="pretrain",
        parent="",
        parameters=1,
        resumed_from_step=resumed_from_step,
        steps=10,
        device="cpu",
        precision="float32",
        process_id=1,
    )


def measured(step: int, loss: float = 2.0) -> TrainMeasured:
    return TrainMeasured(
        step=step, tokens=step * 100, loss=loss, learning_rate=0.1, grad_norm=1.0, tokens_per_s=7.0
    )


def validated(step: int, loss: float) -> Validated:
    return Validated(step=step, tokens=step * 100, loss=loss, bits_per_byte=math.nan, elapsed_s=0.0)


def changed(step: int, before: float, after: float) -> LearningRateChanged:
    return LearningRateChanged(step=step, tokens=step * 100, before=before, after=after, multiplier=1.0)


def fed(*events: Event) -> RunSeries:
    series = RunSeries()
    for event in events:
        series.feed(event)
    return series


# ---------------------------------------------------------------- thinning

POINTS = st.lists(st.tuples(st.integers(0, 10**9), st.floats(width=32)), max_size=300)


@given(POINTS, st.integers(1, 40))
def test_thinning_keeps_the_extremes_the_ends_the_order_and_the_bound(
    points: list[tuple[int, float]], columns: int
) -> None:
    points.sort(key=lambda point: point[0])
    xs, ys = thin([float(x) for x, _ in points], [y for _, y in points], columns)
    drawn = [(float(x), y) for x, y in points if math.isfinite(y)]
    kept = list(zip(xs, ys, strict=True))
    assert len(kept) <= 2 * columns + 2
    assert xs == sorted(xs) and set(kept) <= set(drawn)
    if drawn:
        assert (min(ys), max(ys)) == (min(y for _, y in drawn), max(y for _, y in drawn))
        assert (kept[0], kept[-1]) == (drawn[0], drawn[-1])


def test_a_spike_of_one_step_among_thousands_stays() -> None:
    for at in (0, 1, 4321, 9999):
        ys = [2.0] * 10_000
        ys[at] = 11.0
        xs, kept = thin([float(i) for i in range(10_000)], ys, 60)
        assert (float(at), 11.0) in zip(xs, kept, strict=True) and len(kept) <= 122


def test_thinning_leaves_few_points_and_points_of_one_place_alone() -> None:
    assert thin([1.0, 2.0], [5.0, math.nan], 10) == ([1.0], [5.0])
    assert thin([], [], 10) == ([], [])
    xs, ys = thin([3.0] * 50, [float(i) for i in range(50)], 5)
    assert set(xs) == {3.0} and {0.0, 49.0} <= set(ys)


# ---------------------------------------------------------------- feeding


def test_each_measure_goes_to_its_own_line() -> None:
    series = fed(started(0), validated(0, 9.0), measured(1, 8.0), measured(2, 7.0), validated(2, 7.5))
    train, validation = series.train, series.validation
    assert (list(train.steps), list(train.tokens), list(train.values)) == ([1, 2], [100, 200], [8.0, 7.0])
    assert (list(validation.steps), list(validation.values)) == ([0, 2], [9.0, 7.5])
    assert (series.learning_rate.last(), series.grad_norm.last(), series.tokens_per_s.last()) == (
        0.1,
        1.0,
        7.0,
    )
    assert series.best_validation == 7.5 and RunSeries().train.last() is None


def test_events_that_no_chart_shows_are_passed_over() -> None:
    assert fed(Warned(message="x"), SampleDrawn(step=1, prompt="a", text="b")) == RunSeries()


def test_a_resume_cuts_what_is_taken_again() -> None:
    before = [started(0), validated(0, 9.0), measured(1), measured(2), validated(2, 5.0)]
    lost = [measured(3), changed(4, 0.1, 0.05), measured(4), validated(4, 1.0)]
    after = [started(2), measured(3, 6.0), measured(4, 6.5)]
    series = fed(*before, *lost, *after)
    assert list(series.train.steps) == [1, 2, 3, 4] and list(series.train.values[2:]) == [6.0, 6.5]
    assert list(series.validation.steps) == [0, 2] and series.best_validation == 5.0 and series.marks == []
    assert series == fed(*before, *after[1:])


def test_a_run_that_begins_again_leaves_no_step_twice() -> None:
    once = [started(0), validated(0, 9.0), measured(1)]
    assert fed(*once, *once) == fed(*once)


def test_a_loss_that_is_not_a_number_becomes_a_mark_and_no_best() -> None:
    series = fed(measured(1), NonFiniteMet(step=2, what="loss"), validated(2, math.nan), validated(3, 4.0))
    assert [(mark.step, mark.tokens, mark.label) for mark in series.marks] == [(2, 100, "not finite")]
    assert series.best_validation == 4.0
    assert fed(validated(1, math.nan), started(1)).best_validation == math.inf


def test_a_changed_rate_becomes_a_mark_that_says_by_how_much() -> None:
    marks = fed(changed(3, 0.1, 0.05), changed(4, 0.0, 0.1), changed(5, 0.1, 0.0)).marks
    assert [(mark.step, mark.tokens, mark.label) for mark in marks] == [
        (3, 300, "rate ×½"),
        (4, 400, "rate ×1"),
        (5, 500, "rate ×0"),
    ]


def test_factors_read_as_people_write_them() -> None:
    said = [factor_text(f) for f in (0.5, 0.50001, 0.25, 0.125, 2.0, 0.3, 1.0)]
    assert said == ["×½", "×½", "×¼", "×⅛", "×2", "×0.3", "×1"]


# ---------------------------------------------------------------- smoothing


def test_smoothing_starts_at_the_first_value_and_stays_level_on_level_ground() -> None:
    assert all(math.isclose(value, 4.0) for value in smooth([4.0, 4.0, 4.0], 0.9))
    assert smooth([1.0, 5.0], 0.0) == [1.0, 5.0]
    first, second = smooth([10.0, 0.0], 0.5)
    assert first == 10.0 and math.isclose(second, 10 / 3)


def test_smoothing_is_not_poisoned_by_a_nan() -> None:
    values = smooth([math.nan, 2.0, math.inf, math.nan, 2.0], 0.5)
    assert math.isnan(values[0]) and values[1:] == [2.0, 2.0, 2.0, 2.0]
