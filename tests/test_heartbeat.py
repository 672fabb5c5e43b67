"""Protects the sign of life: it tells slow from dead, says how far a step is, and changes nothing that is learned."""

from pathlib import Path

import pytest

from core import heartbeat
from core.commands import Pause, Resume
from core.events import CheckpointSaved, Event, Heartbeat, RunEnded, RunPaused, TrainMeasured, Validated
from core.launch import start
from core.runs import Run, Runs
from core.train import train
from driving import a_run, drawn, measured, opened, started, until
from tui import plain
from tui.run_state import RunState
from tui.widgets.progress_strip import ProgressStrip

FEW = ["steps=3", "samples.every=0", "batch.micro_batch=1", "validate_every=2"]


def beat(step: int, done: int = 37, of: int = 128) -> Heartbeat:
    return Heartbeat(step=step, tokens=1, micro_batches_done=done, micro_batches=of, memory_bytes=1 << 30)


def kinds(events: list[Event], kind: type[Event]) -> list:  # type: ignore[type-arg]
    return [event for event in events if isinstance(event, kind)]


def trained(root: Path) -> tuple[Run, list[Event]]:
    run = start(Runs(root), "smoke", "pretrain", None, FEW)
    return run, list(train(run.config, run))


def test_beats_fall_between_micro_batches_and_change_no_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most one every few seconds; with the pause taken away, one at each look for commands."""
    _, calm = trained(tmp_path)
    assert len(kinds(calm, Heartbeat)) == 1, "the first comes at once, the next in five seconds"
    monkeypatch.setattr(heartbeat, "_BEAT_S", 0.0)
    run, beating = trained(tmp_path)
    beats = kinds(beating, Heartbeat)
    within = [b.micro_batches_done for b in beats if b.micro_batches and b.step == 1]
    assert within == [0, 1, 2, 3] and {b.micro_batches for b in beats} == {0, 4}
    assert all(b.memory_bytes > 1 << 20 for b in beats)
    for kind in (TrainMeasured, Validated):
        assert [e.loss for e in kinds(calm, kind)] == [e.loss for e in kinds(beating, kind)]
    assert list(run.events()) == beating


def test_a_paused_run_gives_a_sign_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "_PAUSED_BEAT_S", 0.0)
    monkeypatch.setattr(heartbeat, "_BEAT_S", 1e9)
    run = start(Runs(tmp_path), "smoke", "pretrain", None, FEW)
    waiting, events = [Pause()], []
    for event in train(run.config, run, lambda: [waiting.pop(0)] if waiting else []):
        events.append(event)
        if isinstance(event, Heartbeat) and kinds(events, RunPaused) and not waiting:
            waiting.append(Resume())  # type: ignore[arg-type]
    assert isinstance(events[-1], RunEnded) and events[-1].reason == "completed"


def test_a_summary_finds_the_last_figures_under_an_hour_of_beats(tmp_path: Path) -> None:
    run = a_run(tmp_path, [])
    with run.events_file.open("a") as log:
        log.writelines(beat(40).to_line("2026-11-22T17:00:00.000+00:00") + "\n" for _ in range(5000))
    summary = run.summary()
    assert run.events_file.stat().st_size > 1 << 19
    assert (summary.step, summary.validation_loss) == (40, 4.2)
    assert summary.last_at == "2026-11-22T17:00:00.000+00:00"


def test_a_long_step_shows_how_far_it_is_and_a_short_one_does_not(tmp_path: Path) -> None:
    state = RunState(Run(tmp_path))
    state.feed(started(Run(tmp_path / "pretrain" / "x")), 100.0)
    state.is_live = True
    state.feed(measured(1), 101.0)
    state.feed(beat(1), 106.0)
    assert state.within_step is None, "the step may yet be over in ten seconds"
    state.feed(beat(1, 80), 112.0)
    assert state.within_step == (80, 128) and state.last_at == 112.0
    state.feed(measured(2), 130.0)
    assert state.within_step is None, "that step is over"


async def test_the_strip_names_the_micro_batch(tmp_path: Path) -> None:
    run = a_run(tmp_path, [])
    with run.held():
        async with opened(tmp_path) as (app, pilot):
            state = app.stage_pane("pretrain").state
            assert state
            state.feed(beat(40), state.last_at + 30)
            app.stage_pane("pretrain").show_all()
            await until(pilot, lambda: "micro-batch 37/128" in drawn(app))
            assert app.query(ProgressStrip)
            # While it is paused, however long, no step is long.
            state.feed(RunPaused(step=40), state.last_at)
            assert state.within_step is None


async def test_a_dead_run_says_so_and_offers_to_go_on(tmp_path: Path) -> None:
    """The lock is free and no end stands in the log: its process is gone, however fresh its last sign is."""
    a_run(tmp_path, [CheckpointSaved(step=30, path="step-0000030", bytes_written=1, is_best=True), beat(40)])
    async with opened(tmp_path) as (app, pilot):
        await until(pilot, lambda: "Its process is gone. R resumes from step 30." in drawn(app))
        assert "interrupted" in drawn(app) and "Resume" in drawn(app)


def test_a_replay_does_not_wait_at_signs_of_life(tmp_path: Path) -> None:
    run = a_run(tmp_path, [beat(40), beat(40)])
    assert not [event for event in plain.paced(run, 1e9) if isinstance(event, Heartbeat)]
