"""Detach: the run goes on in a process of its own, bit for bit, and obeys the same keys; the app may go."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from core.commands import ScaleLearningRate, Stop
from core.errors import BbtuiError
from core.events import RunEnded, RunStarted, TrainMeasured
from core.launch import start
from core.runs import Run, Runs
from core.train import train
from tui.app import BbtuiApp
from tui.detached import train_detached
from tui.widgets.dialogs import ChoiceDialog
from tui.workers.training import StageRequest

SETTINGS = ("steps=400", "checkpoint_every=1000", "validate_every=100", "samples.every=0")


async def until(pilot: Pilot[None], holds: Callable[[], Any], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await pilot.pause(0.02)


def starts(run: Run) -> list[RunStarted]:
    return [event for event in run.events() if isinstance(event, RunStarted)]


def losses(run: Run) -> dict[int, float]:
    return {e.step: e.loss for e in run.present_events() if isinstance(e, TrainMeasured)}


async def test_a_detached_run_goes_on_bit_for_bit_and_can_be_commanded(tmp_path: Path) -> None:
    """Started in the app, detached by a key, watched and stopped there all the same; the losses are a whole run's."""
    app = BbtuiApp(tmp_path, "smoke")
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.query("#runs"))
        pane = app.stage_pane("pretrain")
        app.begin(StageRequest("pretrain", "smoke", None, SETTINGS))
        await until(pilot, lambda: pane.state and pane.state.step >= 3)
        assert pane.state is not None
        run = pane.state.run
        await pilot.press("d")
        await until(pilot, lambda: not app.trainer.is_busy)
        # Until the other process has it, nobody is told to resume it, and R does not run into its lock.
        assert pane.word == "starting" and "process of its own" in pane.starting
        await pilot.press("R")
        assert app.notices[-1].endswith("going on already.")
        await until(pilot, lambda: len(starts(run)) == 2 and pane.is_live and not pane.is_own)
        other = starts(run)[1].process_id
        assert other != os.getpid() and os.getsid(other) == other
        await until(pilot, lambda: pane.state and pane.state.step > starts(run)[1].resumed_from_step + 5)
        await pilot.press("s")
        assert isinstance(app.screen, ChoiceDialog)
        await pilot.press("enter")
        await until(pilot, lambda: run.summary().state == "stopped")
        await until(pilot, lambda: not pane.is_live)
    parts = losses(run)
    ends = [event.reason for event in run.events() if isinstance(event, RunEnded)]
    assert ends == ["detached", "stopped"]
    whole = start(Runs(tmp_path), "smoke", "pretrain", None, list(SETTINGS))
    for event in train(whole.config, whole):
        if isinstance(event, TrainMeasured) and event.step == max(parts):
            break
    assert losses(whole) == parts


def test_a_detached_run_outlives_a_killed_starter_s_hangup(tmp_path: Path) -> None:
    """It is in a session of its own; it keeps a change that it was told, and ends when it is told to."""
    run = start(Runs(tmp_path), "smoke", "pretrain", None, list(SETTINGS))
    process = train_detached(run)
    try:
        for event in _following(run):
            if isinstance(event, RunStarted):
                assert os.getpgid(process.pid) != os.getpgid(0)
            if isinstance(event, TrainMeasured) and event.step == 5:
                run.tell(ScaleLearningRate(factor=0.5))
                run.tell(Stop())
        assert process.wait(20) == 0 and run.summary().state == "stopped"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def _following(run: Run):  # type: ignore[no-untyped-def]
    """The events of a run that another process trains, until it ends."""
    import time

    from core.event_log import Follower
    from core.events import event_from_line

    follower, deadline = Follower(run.events_file), time.monotonic() + 60
    while time.monotonic() < deadline:
        for line in follower.lines():
            event = event_from_line(line)
            if event:
                yield event
            if isinstance(event, RunEnded):
                return
        time.sleep(0.02)
    raise TimeoutError


def test_a_process_that_cannot_be_started_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(Runs(tmp_path), "smoke", "pretrain", None, list(SETTINGS))
    monkeypatch.setattr("sys.executable", str(tmp_path / "gone"))
    with pytest.raises(BbtuiError, match="No process could be started"):
        train_detached(run)


@pytest.mark.parametrize("is_relative", [True, False])
def test_folders_of_our_names_do_not_stand_in_for_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_relative: bool
) -> None:
    """Where the app was started there may be a `core` and a `tui` of someone else's; paths given from there hold."""
    for name in ("core", "tui"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    root = Path("root") if is_relative else tmp_path / "root"
    run = start(Runs(root), "smoke", "pretrain", None, ["steps=2", "samples.every=0"])
    assert train_detached(run).wait(60) == 0
    assert run.summary().state == "completed"
