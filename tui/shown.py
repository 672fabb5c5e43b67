"""What the chart can show of a run: its losses, or another series a key away."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from core.series import RunSeries, Series
from tui.chart import TRAIN_MARKER, VALIDATION_MARKER, Curve, Paint, View

LOSS = "loss"
ANSWER_MARKERS = ("●", "▲", "■", "◆")
_GPU_MARKER = "▲"
_GB = 1e-9


@dataclass(frozen=True, slots=True)
class Ghost:
    """The validation losses of another run, drawn behind the shown one's."""

    name: str
    marker: str
    series: Series


def choices_of(series: RunSeries) -> list[str]:
    """The names of what can be shown of this run, the losses first."""
    found = {
        LOSS: series.train,
        "learning rate": series.learning_rate,
        "gradient norm": series.grad_norm,
        "tokens/s": series.tokens_per_s,
        "memory, GB": series.memory_bytes,
    }
    names = [name for name, each in found.items() if each.values or name == LOSS]
    return [*names, "right answers"] if series.answers else names


def curves_of(
    series: RunSeries, view: View, paint: Paint, ghosts: Sequence[Ghost] = (), planned_tokens: int = 0
) -> list[Curve]:
    """The curves that the view asks for, the most important last, so that it lies on top.

    Args:
        ghosts: other runs, shown with the losses only.
        planned_tokens: what the shown run will have seen at its end, 0 if unknown.
    """

    def line(each: Series) -> Curve:
        return Curve(each.tokens, each.values, paint.train, smoothing=view.smoothing)

    match view.shows:
        case "learning rate":
            return [replace(line(series.learning_rate), smoothing=0.0)]
        case "gradient norm":
            return [line(series.grad_norm)]
        case "tokens/s":
            return [line(series.tokens_per_s)]
        case "memory, GB":
            return _memory(series, paint)
        case "right answers":
            return [
                Curve(each.tokens, each.values, color, marker, False)
                for (marker, each), color in zip(
                    zip(ANSWER_MARKERS, series.answers.values(), strict=False),
                    (paint.validation, paint.train, paint.mark, paint.axis),
                    strict=False,
                )
            ]
        case _:
            validation = series.validation
            own = Curve(validation.tokens, validation.values, paint.validation, VALIDATION_MARKER, False)
            behind = [_ghost(ghost, series, paint, planned_tokens) for ghost in ghosts]
            # Where only validation was measured, as in a published curve, its points are joined.
            joined = line(series.train) if series.train.values else replace(line(validation), color=own.color)
            return [*behind, joined, own]


def is_by_share(ghost: Ghost, series: RunSeries, planned_tokens: int = 0) -> bool:
    """Whether a ghost's tokens are so many, or so few, that it is drawn against the share of its run instead."""
    own, theirs = _last_tokens(series, planned_tokens), ghost.series.tokens[-1]
    return not 0.1 <= own / max(1, theirs) <= 10


def _ghost(ghost: Ghost, series: RunSeries, paint: Paint, planned_tokens: int) -> Curve:
    scale = 1.0
    if is_by_share(ghost, series, planned_tokens):
        scale = _last_tokens(series, planned_tokens) / max(1, ghost.series.tokens[-1])
    xs = [tokens * scale for tokens in ghost.series.tokens]
    return Curve(xs, ghost.series.values, paint.ghost, ghost.marker, False, is_ghost=True)


def _last_tokens(series: RunSeries, planned_tokens: int) -> int:
    ends = [each.tokens[-1] for each in (series.train, series.validation) if each.tokens]
    return max([planned_tokens, *ends])


def _memory(series: RunSeries, paint: Paint) -> list[Curve]:
    curves = [_in_gb(series.memory_bytes, paint.train, TRAIN_MARKER)]
    if any(series.gpu_memory_bytes.values):
        curves.append(_in_gb(series.gpu_memory_bytes, paint.validation, _GPU_MARKER))
    return curves


def _in_gb(each: Series, color: "tuple[int, int, int] | str", marker: str) -> Curve:
    import numpy as np

    values = np.asarray(each.values, dtype=float) * _GB
    return Curve(each.tokens, values, color, marker, marker == TRAIN_MARKER)
