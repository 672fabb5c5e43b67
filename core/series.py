"""Events become what a chart draws: series against tokens seen, thinned so that spikes stay, and marks."""

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from core.events import (
    AnswersScored,
    CheckpointSaved,
    Event,
    Heartbeat,
    LearningRateChanged,
    NonFiniteMet,
    NoteAdded,
    RunStarted,
    SchedulePlanned,
    TrainMeasured,
    Validated,
    ValidationIntervalChanged,
)
from core.log_columns import Columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

Numbers: TypeAlias = "Sequence[float] | NDArray[Any]"


@dataclass(frozen=True, slots=True)
class Mark:
    """Something to note at a place on the x axis."""

    step: int
    tokens: int
    label: str
    kind: Literal["change", "note", "fault", "best"] = "note"
    """A change is one that can bend the curve."""


@dataclass(slots=True)
class Series:
    """One line of a chart. `steps`, `tokens` and `values` have the same length and rise in step.

    Eight bytes a number: a run of days has hundreds of thousands of steps.
    """

    steps: "array[int]" = field(default_factory=lambda: array("q"))
    tokens: "array[int]" = field(default_factory=lambda: array("q"))
    values: "array[float]" = field(default_factory=lambda: array("d"))

    def beside(self) -> "Series":
        """Another series that is measured whenever this one is; they share steps and tokens."""
        return Series(self.steps, self.tokens)

    def add(self, step: int, tokens: int, value: float) -> None:
        self.steps.append(step)
        self.tokens.append(tokens)
        self.values.append(value)

    def cut_after(self, step: int) -> None:
        """Drop the points of later steps: a resumed run takes them again."""
        kept = len(self.steps)
        while kept and self.steps[kept - 1] > step:
            kept -= 1
        del self.steps[kept:], self.tokens[kept:]
        # Where steps are shared, the first of the series has cut them already.
        del self.values[kept:]

    def last(self) -> float | None:
        return self.values[-1] if self.values else None


@dataclass(slots=True)
class RunSeries:
    """All series of one run, fed event by event; feeding the same log gives the same series."""

    train: Series = field(default_factory=Series)
    learning_rate: Series = field(init=False)
    grad_norm: Series = field(init=False)
    tokens_per_s: Series = field(init=False)
    validation: Series = field(default_factory=Series)
    memory_bytes: Series = field(default_factory=Series)
    gpu_memory_bytes: Series = field(init=False)
    answers: dict[str, Series] = field(default_factory=dict)
    """Mean probability of the correct token, by the name of the set of questions."""
    marks: list[Mark] = field(default_factory=list)
    best_marks: list[Mark] = field(default_factory=list)
    """The checkpoints that were the best when they were written; only the newest still is."""
    best_validation: float = math.inf

    def __post_init__(self) -> None:
        self.learning_rate, self.grad_norm = self.train.beside(), self.train.beside()
        self.tokens_per_s = self.train.beside()
        self.gpu_memory_bytes = self.memory_bytes.beside()

    @property
    def shown_marks(self) -> list[Mark]:
        """The marks that a chart shows, the later ones last."""
        return sorted([*self.marks, *self.best_marks[-1:]], key=lambda mark: mark.step)

    @property
    def marks_by_hand(self) -> list[Mark]:
        """The marks of what someone did, the later ones last."""
        return [mark for mark in self.marks if mark.kind in ("change", "note")]

    @property
    def lengths(self) -> tuple[int, ...]:
        """How long everything is that a chart shows: while they stay, it looks the same."""
        every = (*(len(series.steps) for series in self._series()), len(self.marks), len(self.best_marks))
        return (*every, self.train.steps[-1] if self.train.steps else 0)

    def feed(self, event: Event) -> None:
        """Take one event in; those that no chart shows are passed over."""
        match event:
            case RunStarted(resumed_from_step=step):
                self._cut_after(step)
            case TrainMeasured():
                self.train.add(event.step, event.tokens, event.loss)
                self.learning_rate.values.append(event.learning_rate)
                self.grad_norm.values.append(event.grad_norm)
                self.tokens_per_s.values.append(event.tokens_per_s)
            case Heartbeat():
                self.memory_bytes.add(event.step, event.tokens, event.memory_bytes)
                self.gpu_memory_bytes.values.append(event.gpu_memory_bytes)
            case Validated():
                self.validation.add(event.step, event.tokens, event.loss)
                if event.loss < self.best_validation:
                    self.best_validation = event.loss
            case AnswersScored():
                series = self.answers.setdefault(event.questions, Series())
                series.add(event.step, event.tokens, event.mean_probability)
            case CheckpointSaved(is_best=True):
                self.best_marks.append(Mark(event.step, self.tokens_now, "best", "best"))
            case NonFiniteMet():
                tokens = self.train.tokens[-1] if self.train.tokens else 0
                self.marks.append(Mark(event.step, tokens, "not finite", "fault"))
            case _:
                if mark := _mark_of(event):
                    self.marks.append(mark)

    def feed_columns(self, columns: Columns) -> None:
        """Take in many events of one kind; the same as feeding them one by one."""
        values = columns.values
        series, others = (
            (self.train, (self.learning_rate, self.grad_norm, self.tokens_per_s))
            if columns.kind is TrainMeasured
            else (self.memory_bytes, (self.gpu_memory_bytes,))
        )
        names = _VALUES_OF[columns.kind]
        series.steps.extend(values["step"])
        series.tokens.extend(values["tokens"])
        for each, name in zip((series, *others), names, strict=True):
            each.values.extend(array("d", values[name]))

    @property
    def tokens_now(self) -> int:
        """The tokens of the newest loss."""
        return max((s.tokens[-1] for s in (self.train, self.validation) if s.tokens), default=0)

    def _series(self) -> Iterator[Series]:
        """Every series, each after the one whose steps it shares."""
        yield from (self.train, self.learning_rate, self.grad_norm, self.tokens_per_s, self.validation)
        yield from (self.memory_bytes, self.gpu_memory_bytes, *self.answers.values())

    def _cut_after(self, step: int) -> None:
        # A run that begins again measures step 0 again too.
        step = step or -1
        for series in self._series():
            series.cut_after(step)
        self.answers = {name: series for name, series in self.answers.items() if series.steps}
        self.marks = [mark for mark in self.marks if mark.step <= step]
        self.best_marks = [mark for mark in self.best_marks if mark.step <= step]
        self.best_validation = min((v for v in self.validation.values if not math.isnan(v)), default=math.inf)


_VALUES_OF: dict[type[Event], tuple[str, ...]] = {
    TrainMeasured: ("loss", "learning_rate", "grad_norm", "tokens_per_s"),
    Heartbeat: ("memory_bytes", "gpu_memory_bytes"),
}


def _mark_of(event: Event) -> Mark | None:
    """The mark that something done by hand leaves on the chart."""
    match event:
        case LearningRateChanged():
            return Mark(event.step, event.tokens, rate_change(event), "change")
        case SchedulePlanned():
            label = f"{event.shape} {rate_range(event)}".strip()
            return Mark(event.step, event.tokens, label, "change")
        case ValidationIntervalChanged():
            return Mark(event.step, event.tokens, f"val. every {event.after}")
        case NoteAdded():
            return Mark(event.step, event.tokens, event.text)
        case _:
            return None


def factor_text(factor: float) -> str:
    """A factor as people write it: ×½, ×¼, ×2, ×0.3."""
    named = {0.5: "×½", 0.25: "×¼", 0.125: "×⅛"}
    for value, text in named.items():
        if math.isclose(factor, value, rel_tol=1e-3):
            return text
    return f"×{factor:.3g}"


def rate_change(event: LearningRateChanged) -> str:
    """What was done to the rate: `rate ×½`, or `rate changed` where it is not recorded by how much."""
    factor = event.after / event.before if event.before else 1.0
    return f"rate {factor_text(factor)}" if math.isfinite(factor) else "rate changed"


def rate_range(plan: SchedulePlanned) -> str:
    """Where a plan leads: `→ 0`, `→ 6e-05`; nothing where it stays."""
    return "" if plan.shape == "constant" else f"→ {plan.final_rate:.2g}"


def smooth(values: Sequence[float], weight: float) -> list[float]:
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


def binned(xs: Numbers, ys: Numbers, bins: int) -> tuple[list[float], list[float]]:
    """The means of that many runs of neighbouring points; points that are not finite are left out."""
    import numpy as np

    x, y = _sound(xs, ys)
    if len(x) > bins:
        edges = np.linspace(0, len(x), bins + 1).astype(int)
        counts = np.diff(edges)
        x, y = (np.add.reduceat(numbers, edges[:-1]) / counts for numbers in (x, y))
    return x.tolist(), y.tolist()


def thin(xs: Numbers, ys: Numbers, columns: int) -> tuple[list[float], list[float]]:
    """At most two points a column: its lowest and its highest, in their order, so that a spike survives.

    Points that are not finite are left out. The first and the last point always stay.
    """
    import numpy as np

    x, y = _sound(xs, ys)
    if len(x) <= 2 * columns or columns < 1:
        return x.tolist(), y.tolist()
    width = (x[-1] - x[0]) / columns or 1.0
    column = np.minimum(columns - 1, (x - x[0]) / width).astype(int)
    starts = np.flatnonzero(np.diff(column, prepend=-1)).tolist()
    kept = {0, len(x) - 1}
    for start, end in zip(starts, [*starts[1:], len(x)], strict=True):
        kept.add(start + int(y[start:end].argmin()))
        kept.add(start + int(y[start:end].argmax()))
    order = sorted(kept)
    return x[order].tolist(), y[order].tolist()


def _sound(xs: Numbers, ys: Numbers) -> Any:
    """The points that are finite, as two arrays of numbers that rise in x."""
    import numpy as np

    x, y = np.asarray(xs, dtype=float), np.asarray(ys, dtype=float)
    sound = np.isfinite(y)
    if not sound.all():
        x, y = x[sound], y[sound]
    # A damaged log may step back.
    if (np.diff(x) < 0).any():
        order = np.argsort(x, kind="stable")
        x, y = x[order], y[order]
    return x, y


# ---------------------------------------------------------------- what a change did

_POINTS_TO_TELL = 20


@dataclass(frozen=True, slots=True)
class Effect:
    """How steep the training loss ran before and after a mark, over as many tokens on either side."""

    mark: Mark
    before: float | None
    """Nats per token; None where there are too few steps to tell."""
    after: float | None


def effect_of(series: RunSeries, mark: Mark) -> Effect:
    """The slopes on both sides of a mark, by least squares, as far as no other change lies between.

    Where a log holds no training losses, as a published curve does, those of validation are taken.
    """
    line = series.train if series.train.values else series.validation
    places = [each.tokens for each in series.marks if each.kind == "change" and each != mark]
    if not line.tokens:
        return Effect(mark, None, None)
    begin = max([line.tokens[0], *(place for place in places if place < mark.tokens)])
    end = min([line.tokens[-1], *(place for place in places if place > mark.tokens)])
    reach = min(mark.tokens - begin, end - mark.tokens)
    before = _slope(line, mark.tokens - reach, mark.tokens)
    return Effect(mark, before, _slope(line, mark.tokens, mark.tokens + reach))


def _slope(line: Series, low: int, high: int) -> float | None:
    import numpy as np

    x, y = _sound(line.tokens, line.values)
    inside = (x > low) & (x <= high)
    x, y = x[inside], y[inside]
    if len(x) < _POINTS_TO_TELL or x[0] == x[-1]:
        return None
    x = x - x.mean()
    return float((x * (y - y.mean())).sum() / np.square(x).sum())
