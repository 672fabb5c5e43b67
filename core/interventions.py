"""What is changed by hand while a run goes on: kept in its checkpoints, made again where a resume takes steps again."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

from core.commands import (
    LONGEST_NOTE,
    AddNote,
    Command,
    PlanSchedule,
    ScaleLearningRate,
    SetLearningRate,
    SetValidationInterval,
)
from core.config import StageConfig
from core.errors import CheckpointError
from core.events import (
    Event,
    LearningRateChanged,
    NoteAdded,
    SchedulePlanned,
    ValidationIntervalChanged,
    Warned,
    event_from_row,
)
from core.optim import scheduled_rate, shaped

Intervention = LearningRateChanged | SchedulePlanned | ValidationIntervalChanged | NoteAdded
_OF_THE_RATE = (LearningRateChanged, SchedulePlanned)
SHAPES = ("cosine", "linear", "constant")
_MOST_STEPS = 10**8


class Interventions:
    """Those made so far, those to be made again, and what follows from them for the rate and the run's length."""

    def __init__(self, config: StageConfig) -> None:
        self._config = config
        self.made: list[Intervention] = []
        self.to_come: list[Intervention] = []
        """Made by an earlier process at later steps than its last checkpoint's."""

    def restore(self, rows: Iterable[dict[str, Any]], log: Iterable[Event], step: int) -> None:
        """Take up a checkpoint's rows, and from the log what was made after the checkpoint of `step`.

        Raises: CheckpointError for a row that says nothing to this version.
        """
        kept: list[Intervention] = []
        for row in rows:
            event = event_from_row(row)
            if not isinstance(event, Intervention):
                raise CheckpointError(
                    f"The checkpoint of step {step} holds a change by hand that cannot be read.",
                    "Resume with the version of bbtui that made it.",
                )
            kept.append(event)
        self.made = [event for event in kept if event.step <= step]
        self.to_come = [event for event in _that_hold([*kept, *log]) if event.step > step]

    def rows(self) -> list[dict[str, Any]]:
        """What a checkpoint keeps of them."""
        return [event.to_row() for event in self.made]

    # ------------------------------------------------------------ what follows from them

    def rate(self, step: int, steps: int) -> float:
        """The rate of the update that makes `step` of a run of `steps`."""
        return self._planned(step, steps) * self._multiplier()

    def _planned(self, step: int, steps: int) -> float:
        plan = next((event for event in reversed(self.made) if isinstance(event, SchedulePlanned)), None)
        # Asked for once the last step is made, while it is validated, the rate is that step's.
        step = min(step, steps)
        return planned_rate(plan, step) if plan else scheduled_rate(self._config.optim, step, steps)

    def _multiplier(self) -> float:
        newest = next((event for event in reversed(self.made) if isinstance(event, _OF_THE_RATE)), None)
        return newest.multiplier if isinstance(newest, LearningRateChanged) else 1.0

    @property
    def validate_every(self) -> int:
        changes = [event for event in self.made if isinstance(event, ValidationIntervalChanged)]
        return changes[-1].after if changes else self._config.validate_every

    def steps(self, configured: int) -> int:
        """The run's last step."""
        plans = [event for event in self.made if isinstance(event, SchedulePlanned)]
        return plans[-1].steps if plans else configured

    # ------------------------------------------------------------ making them

    def due(self, step: int) -> Iterator[Intervention]:
        """Make those again that belong before the update of `step`."""
        while self.to_come and self.to_come[0].step <= step:
            event = self.to_come.pop(0)
            self.made.append(event)
            yield event

    def obey(self, command: Command, step: int, tokens: int, steps: int) -> Event | None:
        """Carry out a command before the update that makes `step`; what to say of it, None if it is not of ours.

        Args:
            tokens: seen by the run so far.
            steps: the run's last step as of now.
        """
        event = self._event_of(command, step, tokens, steps)
        if isinstance(event, Intervention):
            # Whoever sets something now means it to hold, also against what an earlier process did later on.
            self.to_come = [e for e in self.to_come if not _takes_back(event, e)]
            self.made.append(event)
        return event

    def _event_of(self, command: Command, step: int, tokens: int, steps: int) -> Event | None:
        match command:
            case SetLearningRate(learning_rate=rate) if math.isfinite(rate) and 0 <= rate <= 1:
                base = self._planned(step, steps)
                if base > 0:
                    return self._multiplied(rate / base, step, tokens, steps)
                return Warned(message="The schedule's rate is zero here; it cannot be set in proportion.")
            case ScaleLearningRate(factor=factor) if math.isfinite(factor) and 0 < factor <= 1000:
                return self._multiplied(self._multiplier() * factor, step, tokens, steps)
            case SetLearningRate() | ScaleLearningRate():
                return Warned(message=f"A rate was asked for that cannot be: {command}.")
            case PlanSchedule():
                return self._plan(command, step, tokens, steps)
            case SetValidationInterval(steps=every) if 1 <= every <= _MOST_STEPS:
                return ValidationIntervalChanged(
                    step=step, tokens=tokens, before=self.validate_every, after=every
                )
            case SetValidationInterval():
                return Warned(message=f"Validation every {command.steps} steps cannot be.")
            case AddNote(text=text) if text.strip():
                return NoteAdded(step=step, tokens=tokens, text=" ".join(text.split())[:LONGEST_NOTE])
            case _:
                return None

    def _multiplied(self, multiplier: float, step: int, tokens: int, steps: int) -> Event:
        planned = self._planned(step, steps)
        before, after = planned * self._multiplier(), planned * multiplier
        return LearningRateChanged(
            step=step, tokens=tokens, before=before, after=after, multiplier=multiplier
        )

    def _plan(self, command: PlanSchedule, step: int, tokens: int, steps: int) -> Event:
        rate = self.rate(step, steps)
        final = command.final_rate
        if (
            command.shape not in SHAPES
            or command.tokens < 0
            or not (math.isfinite(final) and 0 <= final <= 1)
        ):
            return Warned(message=f"A schedule was asked for that cannot be: {command}.")
        if command.shape == "constant":
            final, until = rate, steps
        elif command.tokens:
            seen = tokens / (step - 1) if step > 1 else self._config.batch.tokens
            if not seen:
                return Warned(message="How many tokens a step takes is not known before the first one.")
            until = min(_MOST_STEPS, step - 1 + max(1, round(command.tokens / seen)))
            steps = until
        else:
            until = steps
        return SchedulePlanned(
            step=step,
            tokens=tokens,
            shape=command.shape,
            rate=rate,
            final_rate=final,
            until_step=until,
            steps=steps,
        )


def planned_rate(plan: SchedulePlanned, step: int) -> float:
    """The rate that a plan gives to the update that makes `step`."""
    length = plan.until_step - (plan.step - 1)
    done = min(1.0, max(0.0, (step - (plan.step - 1)) / length)) if length > 0 else 1.0
    return plan.final_rate + (plan.rate - plan.final_rate) * shaped(plan.shape, done)


def _that_hold(log: Iterable[Event]) -> list[Intervention]:
    """Those in a log that still hold, whichever process made them.

    One takes back those of its kind for the same or later steps; one that a resumed process has only made again
    takes back nothing.
    """
    holding: list[Intervention] = []
    for event in log:
        if isinstance(event, Intervention) and event not in holding:
            holding = [e for e in holding if not (e.step >= event.step and _takes_back(event, e))]
            holding.append(event)
    return sorted(holding, key=lambda event: event.step)


def _takes_back(newer: Intervention, older: Intervention) -> bool:
    """Whether the newer one settles what the older one settled. Notes stand side by side."""
    if isinstance(newer, NoteAdded):
        return False
    return isinstance(older, _OF_THE_RATE if isinstance(newer, _OF_THE_RATE) else type(newer))
