"""The queue in the app: begun, stopped after a stage, gone on with by a new app, detached whole."""

import os
import subprocess
import threading
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Button

from core.commands import Pause, Stop
from core.config import STAGES
from core.errors import RetryLaterError
from core.events import Event, RunEnded, RunStarted, TrainMeasured
from core.launch import begin
from core.runs import Run, Runs
from core.stage_queue import QueueFile, QueueTask, new_queue
from core.train import train
from driving import a_run, drawn, ended, opened, started, until
from tui.app import BbtuiApp
from tui.detached import work_off_detached
from tui.queue_keeper import QueueKeeper
from tui.widgets.dialogs import ChoiceDialog
from tui.widgets.queue_screen import QueueScreen


def losses(run: Run) -> dict[int, float]:
    return {e.step: e.loss for e in run.present_events() if isinstance(e, TrainMeasured)}


def processes(run: Run) -> list[int]:
    return [event.process_id for event in run.events() if isinstance(event, RunStarted)]


def stopped_queue(root: Path) -> tuple[QueueFile, Run]:
    """A queue whose first stage was stopped at step 3, with a checkpoint."""
    queue = QueueFile(Runs(root))
    queue.write(new_queue("smoke"))
    run = begin(queue, next(queue.tasks()))
    for event in train(run.config, run):
        if isinstance(event, TrainMeasured) and event.step == 3:
            run.tell(Stop())
    return queue, run


def noted(app: BbtuiApp, words: str) -> bool:
    """Whether a notice said so; others may have come since."""
    return any(words in notice for notice in app.notices)


async def known(app: BbtuiApp, pilot: Pilot[None]) -> QueueKeeper:
    """The app's queue once it has been found."""
    await until(pilot, lambda: app.queue.standing)
    return app.queue


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process trains is told to pause at its steps 3 and 6, as if a key had been pressed just then."""
    append = Run.append

    def noting(run: Run, event: Event) -> None:
        append(run, event)
        if isinstance(event, TrainMeasured) and event.step in (3, 6):
            run.tell(Pause())

    monkeypatch.setattr(Run, "append", noting)


async def paused(app: BbtuiApp, pilot: Pilot[None], step: int = 3) -> None:
    state = app.stage_pane("pretrain")
    await until(pilot, lambda: state.word == "paused" and state.state and state.state.step == step, 60)


@pytest.mark.usefixtures("pauses")
async def test_a_queue_stops_after_a_stage_and_a_new_app_goes_on(tmp_path: Path) -> None:
    """A marks the stage on the rail; the next day Q asks, begins with going on, and the chat opens at the end."""
    store = Runs(tmp_path)
    async with opened(tmp_path, "smoke") as (app, pilot):
        await pilot.press("Q")
        await paused(app, pilot)
        await pilot.press("A")
        await until(pilot, lambda: "pretrain ‖─┤ finetune ○" in drawn(app))
        await pilot.press("p")
        await paused(app, pilot, 6)
        await pilot.press("p")
        await until(pilot, lambda: not app.trainer.is_busy, 60)
        await until(pilot, lambda: noted(app, "Stopped after Pretrain, as asked. Q goes on."))
    assert [run.stage for run in store.all()] == ["pretrain"]
    async with opened(tmp_path, "smoke") as (app, pilot):
        await until(pilot, lambda: noted(app, "The queue waits before Finetune. Q goes on."))
        assert "┤" not in app.stage_pane("pretrain").controls.rail.render().plain
        await pilot.press("Q")
        await pilot.pause()
        assert isinstance(app.screen, ChoiceDialog) and "waits before Finetune" in drawn(app)
        assert isinstance(app.focused, Button) and app.focused.name == "go on"
        await pilot.press("enter")
        await until(pilot, lambda: app.stage_pane("finetune").word == "paused", 60)
        assert app.pane is app.stage_pane("finetune") and len(store.all()) == 2
        await pilot.press("s", "enter")
        await until(pilot, lambda: not app.trainer.is_busy)
        await until(pilot, lambda: noted(app, "The queue waits; Q goes on."))


@pytest.mark.usefixtures("pauses")
async def test_the_whole_queue_is_detached(tmp_path: Path, trained_root: Path) -> None:
    """One process goes on with the run, bit for bit, and then trains the later stages; the app sees them through."""
    queue = QueueFile(Runs(tmp_path))
    queue.write(new_queue("smoke"))
    async with opened(tmp_path, "smoke") as (app, pilot):
        await known(app, pilot)
        app.queue.go_on()
        await paused(app, pilot)
        await pilot.press("d")
        await until(pilot, lambda: app.queue.is_elsewhere and not app.trainer.is_busy, 30)
        assert noted(app, "The queue goes on in a process of its own")
        await until(pilot, lambda: not app.queue.is_elsewhere, 120)
        assert app.queue.standing and app.queue.standing.is_done
        await until(pilot, lambda: noted(app, "Both models are ready"))
    first, *later = queue.store.all()
    assert processes(first)[0] == os.getpid() and len(processes(first)) == 2
    assert [processes(run) for run in later] == [[processes(first)[1]]] * 3
    assert [losses(run) for run in (first, *later)] == [losses(run) for run in Runs(trained_root).all()]


async def test_a_queue_is_detached_before_it_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever presses Q and d at once need not wait for the first step; the other process trains from it on."""

    def hand_over(given: QueueFile, on_event: str) -> "subprocess.Popen[bytes]":
        given.stop_after("pretrain")
        return work_off_detached(given, on_event)

    is_pressed = threading.Event()

    def begin_late(given: QueueFile, task: QueueTask) -> Run:
        assert is_pressed.wait(60)
        return begin(given, task)

    monkeypatch.setattr("tui.queue_keeper.work_off_detached", hand_over)
    monkeypatch.setattr("core.launch.begin", begin_late)
    async with opened(tmp_path, "smoke") as (app, pilot):
        await until(pilot, lambda: app.queue._is_known)
        await pilot.press("Q", "d")
        is_pressed.set()
        await until(pilot, lambda: noted(app, "The queue waits before Finetune"), 60)
        (run,) = app.store.all()
    assert run.summary().state == "completed" and os.getpid() not in processes(run)


@pytest.mark.usefixtures("pauses")
async def test_quitting_can_detach_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second answer saves, hands over and leaves; where no process can be started, the app stays and says so."""
    handed: list[int] = []
    queue = QueueFile(Runs(tmp_path))
    queue.write(new_queue("smoke"))

    def hand_over(given: QueueFile, on_event: str) -> "subprocess.Popen[bytes]":
        assert not given.is_held() and given.store.all()[0].checkpoint_steps()
        handed.append(len(handed))
        if len(handed) == 1:
            raise RetryLaterError("No process could be started.", "Try again.")
        return subprocess.Popen(["true"])

    monkeypatch.setattr("tui.queue_keeper.work_off_detached", hand_over)
    async with opened(tmp_path, "smoke") as (app, pilot):
        await known(app, pilot)
        app.queue.go_on()
        await paused(app, pilot)
        await pilot.press("q")
        await until(pilot, lambda: "later stages" in drawn(app))
        await pilot.press("right", "enter")
        await until(pilot, lambda: "could not be detached" in drawn(app), 30)
        assert not app.is_leaving
        await pilot.press("enter")  # resume here
        await paused(app, pilot, 6)
        await pilot.press("q", "right", "enter")
        await until(pilot, lambda: app._exit, 30)
    assert handed == [0, 1] and app.return_code == 0
    ends = [event.reason for event in queue.store.all()[0].events() if isinstance(event, RunEnded)]
    assert ends == ["detached", "detached"]


async def test_a_failed_stage_is_resumed_with_the_rest_of_the_queue(tmp_path: Path) -> None:
    """The queue waits; the dialog's resume goes on with all of it."""
    queue, run = stopped_queue(tmp_path)
    vocabulary = (run.folder / "tokenizer.json").read_bytes()
    (run.folder / "tokenizer.json").write_bytes(b"{}")
    async with opened(tmp_path, "smoke") as (app, pilot):
        await known(app, pilot)
        app.queue.go_on()
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog) and "Resume from" in drawn(app), 60)
        (run.folder / "tokenizer.json").write_bytes(vocabulary)
        queue.stop_after("finetune")
        await pilot.press("enter")
        await until(pilot, lambda: noted(app, "Stopped after Finetune"), 60)
        assert app.pane is app.stage_pane("finetune")
    assert [found.stage for found in queue.store.all()] == list(STAGES[:2])


async def test_the_view_follows_a_queue_that_another_process_works_off(tmp_path: Path) -> None:
    """It goes to the stage that begins, if it was on the one that ended; a queue that stops is said."""
    queue = QueueFile(Runs(tmp_path))
    queue.write(new_queue("smoke"))
    first = a_run(tmp_path, [])
    queue.note_begun(first)
    async with opened(tmp_path) as (app, pilot):
        with queue.held():
            with first.held():
                first.append(started(first, 40))
                app.look_now()
                await until(pilot, lambda: app.queue.is_elsewhere and app.stage_pane("pretrain").is_live)
            first.append(ended("completed"))
            second = a_run(tmp_path, [], "finetune")
            queue.note_begun(second)
            with second.held():
                app.look_now()
                await until(pilot, lambda: app.pane is app.stage_pane("finetune"))
                await pilot.press("Q", "U")
                assert noted(app, "Another process works off the queue")
                await until(pilot, lambda: isinstance(app.screen, QueueScreen) and "worked off" in drawn(app))
                assert "Go on" not in drawn(app) and "Clear" not in drawn(app)
                await pilot.press("A")
                await until(pilot, lambda: "stops here until" in drawn(app))
                plan = queue.read()
                assert plan and plan.stop_after == "finetune"
                await pilot.press("escape")
            second.append(ended("stopped"))
        app.look_now()
        await until(pilot, lambda: noted(app, "The queue stopped at Finetune, step 40. Q goes on."))


@pytest.mark.parametrize("size", [(80, 24), (60, 20), (40, 12)])
async def test_the_queue_is_a_page(tmp_path: Path, size: tuple[int, int]) -> None:
    """None, a damaged one, an unfinished one: each says what can be done, and clearing forgets the queue alone."""
    async with opened(tmp_path, "smoke", size) as (app, pilot):
        await pilot.press("U")
        await until(pilot, lambda: "There is no queue." in drawn(app))
        await pilot.press("escape")
        queue = app.queue.file
        queue.path.parent.mkdir(exist_ok=True)
        queue.path.write_text("{")
        app.look_now()
        await until(pilot, lambda: app.queue.problem)
        await pilot.press("U")
        await until(pilot, lambda: "damaged" in drawn(app))
        await pilot.press("escape")
        run = a_run(tmp_path, [ended("failed")])
        queue.write(new_queue("quickstart"))
        queue.note_begun(run)
        app.look_now()
        await until(pilot, lambda: app.queue.standing)
        await pilot.press("U")
        await until(pilot, lambda: isinstance(app.focused, Button) and app.focused.name == "go on")
        await until(pilot, lambda: "Go on" in drawn(app))
        assert size[1] < 20 or "failed at Pretrain, step 40" in drawn(app)
        await pilot.press("A", "right", "right", "enter")
        await until(pilot, lambda: queue.read() is None and len(app.screen_stack) == 1)
        assert queue.store.all() == [run]
