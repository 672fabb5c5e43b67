"""Two runs side by side: the settings in which they differ, and what came of each."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.config import StageConfig, settings_of
from core.errors import BbtuiError
from core.events import RunStarted, Validated, event_from_line
from core.records import instant_of_line
from core.runs import Run

_KIND_CHARACTERS = 64
"""Our own lines name their event at their beginning; the others need not be parsed."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One row: a setting or an outcome of two runs. A value is None where a run has none."""

    key: str
    left: Any
    right: Any

    @property
    def differs(self) -> bool:
        return self.left != self.right


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run."""

    state: str
    step: int
    steps: int
    tokens: int
    validation_loss: float | None
    best_validation_loss: float | None
    best_step: int | None
    """The step of the lowest validation loss, whether or not its checkpoint is still there."""
    trained_s: float
    """Summed over its processes, pauses included."""
    parent: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs; the settings are empty where one configuration cannot be read, and `problems` says so."""

    runs: tuple[Run, Run]
    outcomes: tuple[Outcome, Outcome]
    settings: list[Pair]
    problems: list[str]


def compare(left: Run, right: Run) -> Comparison:
    """All settings and the outcomes of two runs."""
    configs: list[StageConfig] = []
    problems: list[str] = []
    for run in (left, right):
        try:
            configs.append(run.config)
        except BbtuiError as error:
            problems.append(f"The settings of {run.name} cannot be read: {error.what}")
    settings = all_settings(configs[0], configs[1]) if not problems else []
    return Comparison((left, right), (outcome_of(left), outcome_of(right)), settings, problems)


def all_settings(left: StageConfig, right: StageConfig) -> list[Pair]:
    """Every setting of either, by its dotted key. The parent is left out: it stands among the outcomes."""
    values = [{setting.key: setting.value for setting in settings_of(config)} for config in (left, right)]
    keys = dict.fromkeys([*values[0], *values[1]])
    return [Pair(key, values[0].get(key), values[1].get(key)) for key in keys if key != "parent"]


def differing_settings(left: StageConfig, right: StageConfig) -> list[Pair]:
    """The settings in which two configurations differ."""
    return [pair for pair in all_settings(left, right) if pair.differs]


def outcome_of(run: Run) -> Outcome:
    """What came of a run; its whole log is read for it."""
    summary = run.summary()
    best, trained_s = _history_of(run)
    return Outcome(
        state=summary.state,
        step=summary.step,
        steps=summary.steps,
        tokens=summary.tokens,
        validation_loss=summary.validation_loss,
        best_validation_loss=best[0] if best else None,
        best_step=best[1] if best else None,
        trained_s=trained_s,
        parent=summary.parent,
    )


def _history_of(run: Run) -> tuple[tuple[float, int] | None, float]:
    """The lowest validation loss that still holds with its step, and the seconds that the run was trained."""
    validated: dict[int, float] = {}
    trained_s, started_at, last = 0.0, "", b""
    if run.events_file.is_file():
        with run.events_file.open("rb") as lines:
            for line in lines:
                kind = line[:_KIND_CHARACTERS]
                if b'"NoteAdded"' in kind:
                    continue
                if b'"Validated"' in kind or b'"RunStarted"' in kind:
                    event = event_from_line(line)
                    if isinstance(event, Validated):
                        validated[event.step] = event.loss
                    elif isinstance(event, RunStarted):
                        trained_s += _seconds_between(started_at, instant_of_line(last))
                        started_at = instant_of_line(line)
                        # A resumed run takes the later steps again; one that begins again, all of them.
                        holds_to = event.resumed_from_step or -1
                        validated = {step: loss for step, loss in validated.items() if step <= holds_to}
                last = line
    trained_s += _seconds_between(started_at, instant_of_line(last))
    # Not a number is not less than anything.
    rated = [(loss, step) for step, loss in validated.items() if loss == loss]
    return (min(rated) if rated else None), trained_s


def _seconds_between(start: str, end: str) -> float:
    try:
        return max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
