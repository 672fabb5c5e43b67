"""Changes by hand: what they do to the rate and the run's length, which of them hold, and that a resume keeps them."""

import math
from pathlib import Path

import pytest

from core import checkpoint
from core.commands import (
    AddNote,
    Command,
    PlanSchedule,
    ScaleLearningRate,
    SetLearningRate,
    SetValidationInterval,
    Stop,
)
from core.config import StageConfig, load_stage
from core.errors import CheckpointError
from core.events import (
    Event,
    LearningRateChanged,
    NoteAdded,
    RunEnded,
    RunStarted,
    SchedulePlanned,
    TrainMeasured,
    Validated,
    ValidationIntervalChanged,
    Warned,
)
from core.interventions import Interventions
from core.launch import start
from core.runs import Run, Runs
from core.train import train

PACE = ["steps=30", "validate_every=5", "checkpoint_every=7", "samples.every=0", "model.dropout=0.1"]
TOKENS = 512
"""Fed by each step of the preset `smoke`."""


@pytest.fixture
def config(tmp_path: Path) -> StageConfig:
    return load_stage("smoke", "pretrain", tmp_path, PACE)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    monkeypatch.setenv("BBTUI_DATA", str(tmp_path_factory.getbasetemp() / "intervention-shards"))
    return Runs(tmp_path)


def launch(store: Runs) -> Run:
    return start(store, "smoke", "pretrain", None, PACE)


def go(run: Run, told: dict[int, list[Command]] | None = None, until: int | None = None) -> list[Event]:
    """Train to the end, or, as if killed, to step `until`; commands are given once their step is done."""
    waiting: list[Command] = []

    def poll() -> list[Command]:
        given = list(waiting)
        waiting.clear()
        return given

    events = []
    for event in train(run.config, run, poll):
        events.append(event)
        if isinstance(event, TrainMeasured):
            waiting.extend((told or {}).get(event.step, []))
            if event.step == until:
                break
    return events


def made(interventions: Interventions, command: Command, step: int, steps: int = 30) -> Event | None:
    return interventions.obey(command, step, (step - 1) * TOKENS, steps)


def figures(run: Run) -> list[tuple[object, ...]]:
    """Every loss and rate that holds, and every change by hand, in order."""
    return [
        (e.step, e.loss, e.learning_rate) if isinstance(e, TrainMeasured) else (e.step, e.loss)
        for e in run.present_events()
        if isinstance(e, (TrainMeasured, Validated))
    ]


# ---------------------------------------------------------------- the rate


@pytest.mark.parametrize(("shape", "half"), [("cosine", 0.5), ("linear", 0.5), ("constant", 1.0)])
def test_a_plan_leads_from_the_present_rate_to_its_last(config: StageConfig, shape: str, half: float) -> None:
    hand = Interventions(config)
    before = hand.rate(11, 30)
    plan = made(hand, PlanSchedule(shape=shape), 11)
    assert isinstance(plan, SchedulePlanned) and (plan.until_step, plan.steps) == (30, 30)
    assert plan.rate == before
    assert math.isclose(hand.rate(20, 30), before * half)
    assert math.isclose(hand.rate(30, 30), before if shape == "constant" else 0.0, abs_tol=1e-12)
    rates = [hand.rate(step, 30) for step in range(11, 31)]
    assert rates == sorted(rates, reverse=True) and rates[0] <= before


def test_a_plan_over_tokens_ends_the_run_there(config: StageConfig) -> None:
    hand = Interventions(config)
    made(hand, PlanSchedule(shape="linear", tokens=4 * TOKENS, final_rate=1e-5), 11)
    assert hand.steps(30) == 14 and math.isclose(hand.rate(14, 14), 1e-5)
    made(hand, PlanSchedule(shape="cosine", tokens=100 * TOKENS), 12, 14)
    assert hand.steps(30) == 111


def test_a_factor_holds_on_a_plan_and_a_plan_begins_from_the_changed_rate(config: StageConfig) -> None:
    hand = Interventions(config)
    base = hand.rate(6, 30)
    made(hand, ScaleLearningRate(factor=0.5), 6)
    made(hand, PlanSchedule(shape="constant"), 6)
    assert math.isclose(hand.rate(20, 30), base / 2)
    made(hand, ScaleLearningRate(factor=0.5), 21)
    assert math.isclose(hand.rate(22, 30), base / 4)
    made(hand, SetLearningRate(learning_rate=base), 23)
    assert math.isclose(hand.rate(30, 30), base)


def test_a_change_asked_for_after_the_last_step_is_of_that_step_s_rate(config: StageConfig) -> None:
    """While the last step is validated there is no next one; the schedule is not followed past its end."""
    hand = Interventions(config)
    change = made(hand, ScaleLearningRate(factor=0.5), 31)
    assert isinstance(change, LearningRateChanged) and change.before == Interventions(config).rate(30, 30)
    made(hand, PlanSchedule(shape="linear"), 31)
    assert hand.steps(30) == 30


@pytest.mark.parametrize(
    "command",
    [
        PlanSchedule(shape="stairs"),
        PlanSchedule(shape="cosine", tokens=-1),
        PlanSchedule(shape="linear", final_rate=math.nan),
        PlanSchedule(shape="linear", final_rate=2.0),
        SetValidationInterval(steps=0),
        SetLearningRate(learning_rate=-1.0),
        ScaleLearningRate(factor=math.inf),
    ],
    ids=repr,
)
def test_what_cannot_be_is_refused_in_words(config: StageConfig, command: Command) -> None:
    hand = Interventions(config)
    assert isinstance(made(hand, command, 5), Warned) and not hand.made


def test_an_empty_note_and_foreign_commands_do_nothing(config: StageConfig) -> None:
    hand = Interventions(config)
    assert made(hand, AddNote(text=" \n "), 5) is None and made(hand, Stop(), 5) is None


# ---------------------------------------------------------------- which of them hold


def test_a_later_word_takes_back_an_earlier_process_s_future(config: StageConfig) -> None:
    """After a resume from step 7, what was done at step 12 comes again unless someone has settled it anew."""
    first = Interventions(config)
    log = [
        made(first, ScaleLearningRate(factor=0.5), 12),
        made(first, AddNote(text="here"), 12),
        made(first, SetValidationInterval(steps=2), 13),
    ]
    resumed = Interventions(config)
    resumed.restore([], [event for event in log if event], 7)
    assert resumed.to_come == log and not resumed.made
    made(resumed, PlanSchedule(shape="constant"), 9)
    assert [type(event) for event in resumed.to_come] == [NoteAdded, ValidationIntervalChanged]
    assert list(resumed.due(12)) == [log[1]]
    assert list(resumed.due(13)) == [log[2]] and resumed.validate_every == 2


def test_rows_come_back_and_an_unreadable_one_is_an_error(config: StageConfig) -> None:
    first = Interventions(config)
    made(first, PlanSchedule(shape="cosine", tokens=5 * TOKENS), 8)
    made(first, ScaleLearningRate(factor=1 / 3), 9)
    second = Interventions(config)
    second.restore(first.rows(), [], 20)
    assert second.made == first.made and second.rate(11, 12) == first.rate(11, 12)
    with pytest.raises(CheckpointError, match="change by hand"):
        second.restore([{"event": "FromTheFuture", "step": 3}], [], 20)


# ---------------------------------------------------------------- in a run


HAND: dict[int, list[Command]] = {
    10: [AddNote(text="before the fall"), SetValidationInterval(steps=3)],
    16: [PlanSchedule(shape="cosine", tokens=20 * TOKENS)],
    18: [ScaleLearningRate(factor=0.5)],
}


def told_after(step: int, of: dict[int, list[Command]]) -> dict[int, list[Command]]:
    return {at: commands for at, commands in of.items() if at > step}


def test_stopped_and_resumed_keeps_every_change_bit_for_bit(store: Runs) -> None:
    """Planned past its configured end, halved, validated more often, noted: three processes equal one."""
    whole, parts = launch(store), launch(store)
    go(whole, HAND)
    go(parts, {**HAND, 13: [Stop()]})
    go(parts, {**told_after(13, HAND), 20: [Stop()]})
    again = go(parts)
    started = next(event for event in again if isinstance(event, RunStarted))
    assert (started.resumed_from_step, started.steps) == (20, 36)
    assert figures(parts) == figures(whole) and parts.summary().state == "completed"
    assert parts.summary().step == parts.summary().steps == 36
    tensors = [checkpoint.load_at(run).tensors for run in (whole, parts)]
    assert all(tensors[0][name].equal(tensors[1][name]) for name in tensors[0])
    kinds = (LearningRateChanged, SchedulePlanned, ValidationIntervalChanged, NoteAdded)
    changes = [[e for e in run.present_events() if isinstance(e, kinds)] for run in (whole, parts)]
    assert changes[0] == changes[1] and len(changes[0]) == 4


def test_killed_after_every_change_loses_none(store: Runs) -> None:
    """The newest checkpoint is of step 14; what was done at 16 and 18 comes again from the log."""
    whole, cut = launch(store), launch(store)
    go(whole, HAND)
    go(cut, HAND, until=20)
    events = go(cut)
    assert next(e for e in events if isinstance(e, RunStarted)).resumed_from_step == 14
    assert figures(cut) == figures(whole)


def test_a_run_ends_where_its_plan_does(store: Runs) -> None:
    run = launch(store)
    events = go(run, {10: [PlanSchedule(shape="linear", tokens=5 * TOKENS)]})
    last = [event for event in events if isinstance(event, TrainMeasured)][-1]
    assert last.step == 15 and last.learning_rate == 0.0
    assert isinstance(events[-1], RunEnded) and events[-1].reason == "completed"
    assert run.checkpoint_steps()[-1] == 15 and run.summary().steps == 15
