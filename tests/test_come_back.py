"""A run is steered, detached and outlives a killed app; whoever comes back finds it whole, and it goes on exactly."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from core.events import LearningRateChanged, RunStarted, TrainMeasured
from core.runs import Run, Runs
from core.train import train
from driving import drawn, opened, strike, told_at_steps, until
from pseudo_terminal import PseudoTerminal, last_step

SETTLED = 3
"""Steps that a change is given to show its effect before the next key."""


def of_kind(run: Run, kind: type) -> list:  # type: ignore[type-arg]
    return [event for event in run.present_events() if isinstance(event, kind)]


def figures(run: Run, until_step: int) -> list[tuple[int, float, float]]:
    """Step, loss and learning rate of every step so far."""
    return [(e.step, e.loss, e.learning_rate) for e in of_kind(run, TrainMeasured) if e.step <= until_step]


@contextlib.contextmanager
def outliving(run: Run) -> Iterator[None]:
    """Whatever happens, the process that trains the run is gone in the end."""
    try:
        yield
    finally:
        for event in run.events():
            if isinstance(event, RunStarted) and event.process_id != os.getpid():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(event.process_id, signal.SIGKILL)


def start_halve_twice_detach_and_kill(root: Path) -> Run:
    """All by keys in a terminal, but for the kill; the run that goes on in a process of its own."""
    with PseudoTerminal(root) as terminal:
        terminal.until_shown("Nothing is pretrained yet")
        terminal.press("S")
        terminal.until_shown("Optimizer steps")
        terminal.press("\x15")
        # A key that is a command is carried out later than a letter typed after it is taken.
        terminal.until_shown("should be a valid integer")
        terminal.press("100000")
        terminal.until_shown("100000 steps")
        terminal.press("\x1b")
        terminal.until_shown("Nothing is pretrained yet")
        terminal.press("\r")
        terminal.until_shown("Start detached")
        terminal.press("\r")
        terminal.until(lambda: Runs(root).all("pretrain"))
        run = Runs(root).all("pretrain")[0]
        terminal.until(lambda: last_step(run) >= SETTLED)
        for number in (1, 2):
            terminal.press("-")
            terminal.until(lambda n=number: len(of_kind(run, LearningRateChanged)) == n)
            changed_at = of_kind(run, LearningRateChanged)[-1].step
            terminal.until(lambda at=changed_at: last_step(run) >= at + SETTLED)
        terminal.press("d")
        terminal.until(lambda: len([e for e in run.events() if isinstance(e, RunStarted)]) == 2)
        terminal.process.send_signal(signal.SIGKILL)
        terminal.process.wait()
    return run


async def test_a_killed_app_comes_back_to_its_run_and_a_resume_keeps_the_schedule(tmp_path: Path) -> None:
    """The chart is whole with both marks, the run still goes; what follows is a whole run's, bit for bit."""
    run = start_halve_twice_detach_and_kill(tmp_path)
    with outliving(run):
        async with opened(tmp_path, "smoke") as (app, pilot):
            pane = app.stage_pane("pretrain")
            await until(pilot, lambda: pane.is_live and not pane.is_own)
            assert pane.state is not None and pane.state.run == run
            seen_at = pane.state.step
            await until(pilot, lambda: pane.state and pane.state.step > seen_at + SETTLED, 30)
            series = pane.state.series
            steps = series.train.steps
            assert list(steps) == list(range(1, steps[-1] + 1))
            changes = [mark.step for mark in series.marks if mark.kind == "change"]
            assert (
                changes == [event.step for event in of_kind(run, LearningRateChanged)] and len(changes) == 2
            )
            assert drawn(app).count("×½") >= 1
            await strike(app, pilot, "s")
            await until(pilot, lambda: len(app.screen_stack) == 2 and app.focused)
            await strike(app, pilot, "enter")
            await until(pilot, lambda: run.summary().state == "stopped", 30)
    stopped_at = last_step(run)
    assert run.checkpoint_steps()[-1] == stopped_at
    for event in train(run.config, run):
        if isinstance(event, TrainMeasured) and event.step == stopped_at + 8:
            break
    found = figures(run, stopped_at + 8)
    assert found == in_one_go(run, stopped_at + 8)
    rates = {step: rate for step, _, rate in found}
    assert rates[stopped_at + 8] < 0.3 * max(rates.values())


def in_one_go(run: Run, until_step: int) -> list[tuple[int, float, float]]:
    """What the same run is that nobody interrupts, told the same at the same steps."""
    whole = Runs(run.folder.parents[2]).create(run.config)
    told_at = told_at_steps(run)
    waiting = list(told_at.get(0, []))

    def poll():  # type: ignore[no-untyped-def]
        given, waiting[:] = list(waiting), []
        return given

    for event in train(whole.config, whole, poll):
        if isinstance(event, TrainMeasured):
            waiting += told_at.get(event.step, [])
            if event.step == until_step:
                break
    return figures(whole, until_step)
