"""An error in the midst of a training: what was learned before it is saved, what is half done is not."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from core.errors import RetryLaterError
from core.events import CheckpointSaved, Event, RunEnded, TrainMeasured
from core.launch import start
from core.runs import Run, Runs
from core.train import train
from core.workbench import Workbench

SETTINGS = ["steps=10", "validate_every=100", "checkpoint_every=100", "samples.every=0"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return start(Runs(tmp_path), "smoke", "pretrain", None, SETTINGS)


def raising_at(step: int, function, error: Exception):  # type: ignore[no-untyped-def]
    """The method of a Workbench, but that it raises after that many steps."""

    def raising(self: Workbench, *given):  # type: ignore[no-untyped-def]
        if self.state.step == step:
            raise error
        return function(self, *given)

    return raising


def failing(events: Iterator[Event], error: type[Exception]) -> list[Event]:
    """The events up to this error."""
    seen: list[Event] = []
    with pytest.raises(error):
        for event in events:
            seen.append(event)
    return seen


def losses(run: Run) -> list[float]:
    return [event.loss for event in run.present_events() if isinstance(event, TrainMeasured)]


def test_an_error_in_the_loss_loses_no_finished_step(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last finished step is saved, and the resumed run's losses are those of a run that met no error."""
    whole = start(Runs(run.folder.parents[2]), "smoke", "pretrain", None, SETTINGS)
    for _ in train(whole.config, whole):
        pass
    with monkeypatch.context() as patch:
        patch.setattr(Workbench, "loss_sum", raising_at(6, Workbench.loss_sum, RuntimeError("a bad kernel")))
        last = failing(train(run.config, run), RuntimeError)[-2:]
    assert isinstance(last[0], CheckpointSaved) and last[0].step == 6
    assert isinstance(last[1], RunEnded) and (last[1].reason, last[1].step) == ("failed", 6)
    for _ in train(run.config, run):
        pass
    assert losses(run) == losses(whole) and len(losses(whole)) == 10


def test_a_half_made_update_is_not_saved(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that some of an update went into are nobody's: no checkpoint is made of them."""
    taken = 0

    def step(self, *given, original=torch.optim.AdamW.step):  # type: ignore[no-untyped-def]
        nonlocal taken
        taken += 1
        if taken == 4:
            raise RuntimeError("a bad kernel")
        return original(self, *given)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    seen = failing(train(run.config, run), RuntimeError)
    assert max(event.step for event in seen if isinstance(event, TrainMeasured)) == 3
    assert not run.checkpoint_steps() and run.summary().state == "failed"


def test_an_error_that_saving_meets_again_is_said_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the rescue fails as well, the first error is the one that is told."""

    def save(self: Workbench) -> Event:
        raise RetryLaterError("The disk is full.", "Free some space.")

    monkeypatch.setattr(Workbench, "save", save)
    monkeypatch.setattr(
        Workbench, "loss_sum", raising_at(2, Workbench.loss_sum, RuntimeError("a bad kernel"))
    )
    seen = failing(train(run.config, run), RuntimeError)
    assert isinstance(seen[-1], RunEnded) and "a bad kernel" in seen[-1].message
