"""Events become what a chart draws: series against tokens seen, thinned so that spikes stay, and marks."""

import math
from dataclasses import dataclass, field

from core.events import (
    Event,
    LearningRateChanged,
    NonFiniteMet,
    NoteAdded,
    RunStarted,
    SchedulePlanned,
    TrainMeasured,
    Validated,
    ValidationIntervalChanged,
)


@dataclass(slots=True)
class Mark:
    """Something to note at a place on the x axis."""

    step: int
    tokens: int
    label: str


@dataclass(slots=True)
class Series:
    """One line of a chart. `steps`, `tokens` and `values` have the same length and rise in step."""

    steps: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, step: int, tokens: int, value: float) -> None:
        self.steps.append(step)
        self.tokens.append(tokens)
        self.values.append(value)

    def cut_after(self, step: int) -> None:
        """Drop the points of later steps: a resumed run takes them again."""
        while self.steps and self.steps[-1] > step:
            self.steps.pop()
            self.tokens.pop()
            self.values.pop()

    def last(self) -> float | None:
        return self.values[-1] if self.values else None


@dataclass(slots=True)
class RunSeries:
    """All series of one run, fed event by event; feeding the same log gives the same series."""

    train: Series = field(default_factory=Series)
    validation: Series = field(default_factory=Series)
    learning_rate: Series = field(default_factory=Series)
    grad_norm: Series = field(default_factory=Series)
    tokens_per_s: Series = field(default_factory=Series)
    marks: list[Mark] = field(default_factory=list)
    best_validation: float = math.inf

    def feed(self, event: Event) -> None:
        """Take one event in; those that no chart shows are passed over."""
        match event:
            case RunStarted(resumed_from_step=step):
                self._cut_after(step)
            case TrainMeasured():
                self.train.add(event.step, event.tokens, event.loss)
                self.learning_rate.add(event.step, event.tokens, event.learning_rate)
                self.grad_norm.add(event.step, event.tokens, event.grad_norm)
                self.tokens_per_s.add(event.step, event.tokens, event.tokens_per_s)
            case Validated():
                self.validation.add(event.step, event.tokens, event.loss)
                if event.loss < self.best_validation:
                    self.best_validation = event.loss
            case LearningRateChanged():
                factor = event.after / event.before if event.before else 1.0
                self.marks.append(Mark(event.step, event.tokens, f"rate {factor_text(factor)}"))
            case SchedulePlanned():
                self.marks.append(
                    Mark(event.step, event.tokens, f"{event.shape} {rate_range(event)}".strip())
                )
            case ValidationIntervalChanged():
                self.marks.append(Mark(event.step, event.tokens, f"val. every {event.after}"))
            case NoteAdded():
                self.marks.append(Mark(event.step, event.tokens, event.text))
            case NonFiniteMet():
                tokens = self.train.tokens[-1] if self.train.tokens else 0
                self.marks.append(Mark(event.step, tokens, "not finite"))
            case _:
                pass

    def _cut_after(self, step: int) -> None:
        # A run that begins again measures step 0 again too.
        step = step or -1
        for series in (self.train, self.validation, self.learning_rate, self.grad_norm, self.tokens_per_s):
            series.cut_after(step)
        self.marks = [mark for mark in self.marks if mark.step <= step]
        self.best_validation = min((v for v in self.validation.values if not math.isnan(v)), default=math.inf)


def factor_text(factor: float) -> str:
    """A factor as people write it: ×½, ×¼, ×2, ×0.3."""
    named = {0.5: "×½", 0.25: "×¼", 0.125: "×⅛"}
    for value, text in named.items():
        if math.isclose(factor, value, rel_tol=1e-3):
            return text
    return f"×{factor:.3g}"


def rate_range(plan: SchedulePlanned) -> str:
    """Where a plan leads: `→ 0`, `→ 6e-05`; nothing where it stays."""
    return "" if plan.shape == "constant" else f"→ {plan.final_rate:.2g}"


def smooth(values: list[float], weight: float) -> list[float]:
    """Bias-corrected exponential moving average; values that are not finite leave the average as it is.

    Args:
        weight: share of the past in each value, 0 (no smoothing) to below 1.
    """
    average, correction, smoothed = 0.0, 0.0, []
    for value in values:
        if math.isfinite(value):
            average = weight * average + (1 - weight) * value
            correction = weight * correction + (1 - weight)
        smoothed.append(average / correction if correction else value)
    return smoothed


def thin(xs: list[float], ys: list[float], columns: int) -> tuple[list[float], list[float]]:
    """At most two points a column: its lowest and its highest, in their order, so that a spike survives.

    Points that are not finite are left out. The first and the last point always stay.
    """
    points = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
    if len(points) <= 2 * columns or columns < 1:
        return [x for x, _ in points], [y for _, y in points]
    low, high = points[0][0], points[-1][0]
    width = (high - low) / columns or 1.0
    kept: list[tuple[float, float]] = []
    column: list[tuple[float, float]] = []
    at = 0
    for point in points:
        index = min(columns - 1, int((point[0] - low) / width))
        if index != at and column:
            kept.extend(_extremes(column))
            column = []
        at = index
        column.append(point)
    kept.extend(_extremes(column))
    if kept[0] != points[0]:
        kept.insert(0, points[0])
    if kept[-1] != points[-1]:
        kept.append(points[-1])
    return [x for x, _ in kept], [y for _, y in kept]


def _extremes(column: list[tuple[float, float]]) -> list[tuple[float, float]]:
    lowest = min(column, key=lambda point: point[1])
    highest = max(column, key=lambda point: point[1])
    if lowest == highest:
        return [lowest]
    return sorted((lowest, highest))
