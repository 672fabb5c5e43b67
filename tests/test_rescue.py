"""An error in the midst of a training: what was learned before it is saved, what is half done is not."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from core.commands import Command, Pause, Resume, SaveNow, Stop
from core.errors import RetryLaterError
from core.events import CheckpointSaved, Event, RunContinued, RunEnded, RunPaused, TrainMeasured
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


def full_disk(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next saves, so many of them, find no room."""
    save, left = Workbench.save, iter(range(times))

    def refusing(self: Workbench) -> Event:
        if next(left, None) is not None:
            raise RetryLaterError(
                f"Cannot write the checkpoint of {self.run.name}: No space left.", "Free some."
            )
        return save(self)

    monkeypatch.setattr(Workbench, "save", refusing)


@pytest.mark.parametrize(
    "saves_at", ["checkpoint_every=4", "checkpoint_every=100"], ids=["amid", "at the end"]
)
def test_a_full_disk_pauses_the_run_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saves_at: str
) -> None:
    """Each time it is let go on it tries the save again; the losses are those of a run that met no full disk."""
    whole, run = (start(Runs(tmp_path), "smoke", "pretrain", None, [*SETTINGS, saves_at]) for _ in range(2))
    for _ in train(whole.config, whole):
        pass
    full_disk(2, monkeypatch)
    seen: list[Event] = []
    for event in train(run.config, run):
        seen.append(event)
        if isinstance(event, RunPaused):
            assert "No space left" in event.reason and run.name not in event.reason
            assert run.summary().state == "paused"
            run.tell(Resume())
    step = 4 if "4" in saves_at else 10
    told = [event for event in seen if isinstance(event, RunPaused | RunContinued | CheckpointSaved)][:5]
    kinds = [RunPaused, RunContinued, RunPaused, RunContinued, CheckpointSaved]
    assert [type(event) for event in told] == kinds and {event.step for event in told} == {step}
    assert run.summary().state == "completed" and losses(run) == losses(whole)


def test_a_save_by_hand_that_finds_no_room_stays_paused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for while the run is paused already: one resume lets it go on, and the log says so once."""
    full_disk(1, monkeypatch)
    orders: list[list[Command]] = [[Pause(), SaveNow()], [Resume()]]
    events: list[Event] = []

    def commands() -> list[Command]:
        return orders.pop(0) if orders and any(isinstance(e, TrainMeasured) for e in events) else []

    for event in train(run.config, run, commands):
        events.append(event)
    kinds = [type(event) for event in events]
    assert kinds.count(RunPaused) == 2 and kinds.count(RunContinued) == 1
    assert kinds.index(RunContinued) < kinds.index(CheckpointSaved)
    assert len(losses(run)) == 10


@pytest.mark.parametrize("save", [True, False])
def test_a_full_disk_does_not_hold_who_stops(run: Run, monkeypatch: pytest.MonkeyPatch, save: bool) -> None:
    """A stop ends the waiting: with an error where a checkpoint was asked for, without one where it was not."""
    full_disk(100, monkeypatch)

    def events() -> Iterator[Event]:
        for event in train(run.config, run):
            if isinstance(event, RunPaused):
                run.tell(Stop(save=save))
            yield event

    if save:
        failing(events(), RetryLaterError)
    else:
        assert len(list(events())) > 10
    assert run.summary().state == ("failed" if save else "stopped")
