"""The plan before the launch: Enter Enter starts at once, a long run is offered detached first, nothing slips."""

import os
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Button, Input

from core.events import RunStarted
from core.plan import Machine, Plan
from core.probe import MachineFound, PaceMeasured, ProbeEvent, ProbeFailed, ProbeProgressed
from core.runs import Run, Runs
from driving import drawn, live_run, opened, until
from tui.app import BbtuiApp
from tui.messages import StartStage
from tui.widgets.dialogs import ChoiceDialog
from tui.widgets.plan_screen import PlanScreen
from tui.workers import planning
from tui.workers.detached_start import DetachedFailed, DetachedStart
from tui.workers.planning import Planner, PlanRequest
from tui.workers.training import StageRequest

CPU = Machine("cpu", "float32", has_gpu=False, has_bfloat16=False)


class FakeProbe:
    """A probe that tells its result when it is let go, or ends when it is stopped."""

    made: list["FakeProbe"]
    step_s = 0.5

    def __init__(self, plan: Plan) -> None:
        self.go = threading.Event()
        self.is_stopped = False
        self.made.append(self)

    def events(self) -> Iterator[ProbeEvent]:
        yield MachineFound(**asdict(CPU))
        yield ProbeProgressed(elapsed_s=1.0, step_s=self.step_s)
        assert self.go.wait(20)
        if not self.is_stopped:
            yield self.result()

    def result(self) -> ProbeEvent:
        return PaceMeasured(
            step_s=self.step_s, validation_row_s=0, token_s=0, memory_bytes=510_000_000, elapsed_s=9
        )

    def stop(self) -> None:
        self.is_stopped = True
        self.go.set()


@pytest.fixture(autouse=True)
def probes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[FakeProbe]]:
    """No test measures; those made are listed, and each has to be stopped or done in the end."""
    FakeProbe.made = []
    monkeypatch.setattr(planning, "ProbeProcess", FakeProbe)
    yield FakeProbe.made
    assert all(probe.go.is_set() for probe in FakeProbe.made)


async def plan_screen(app: BbtuiApp, pilot: Pilot[None], key: str = "enter") -> PlanScreen:
    """The screen that a key opens, its plan known."""
    await pilot.press(key)
    await until(pilot, lambda: isinstance(app.screen, PlanScreen) and app.screen.plan)
    assert isinstance(app.screen, PlanScreen)
    return app.screen


def buttons(screen: PlanScreen) -> list[str]:
    """The labels in their order, the focused one in brackets."""
    return [f"[{b.label}]" if b.has_focus else str(b.label) for b in screen.query(Button)]


def said(app: BbtuiApp) -> str:
    """What is drawn, its lines joined."""
    return " ".join(drawn(app).replace("│", " ").split())


async def measured(app: BbtuiApp, pilot: Pilot[None], probes: list[FakeProbe]) -> PlanScreen:
    """The screen once its probe is done."""
    screen = await plan_screen(app, pilot)
    await until(pilot, lambda: probes)
    probes[-1].go.set()
    await until(pilot, lambda: screen.pace)
    await pilot.pause()
    return screen


# ---------------------------------------------------------------- what it offers


async def test_enter_twice_starts_without_waiting(tmp_path: Path, probes: list[FakeProbe]) -> None:
    """The measuring goes on while the second Enter comes; it is ended by it."""
    async with opened(tmp_path, "smoke") as (app, pilot):
        screen = await plan_screen(app, pilot)
        await until(pilot, lambda: probes and "measuring this machine" in drawn(app))
        assert buttons(screen) == ["[Start]", "Start detached", "Cancel"]
        await pilot.press("enter")
        pane = app.stage_pane("pretrain")
        await until(pilot, lambda: probes[0].is_stopped)
        await until(pilot, lambda: pane.word == "completed" and not app.trainer.is_busy, 90)


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (60, 20), (40, 12)])
async def test_it_fits_and_scrolls(tmp_path: Path, probes: list[FakeProbe], size: tuple[int, int]) -> None:
    """Every button stands on the screen, and each line can be scrolled to."""
    async with opened(tmp_path, "smoke", size) as (app, pilot):
        screen = await measured(app, pilot, probes)
        box = screen.query_one(".dialog").region
        assert box.x >= 0 and box.y >= 0 and box.right <= size[0] and box.bottom <= size[1]
        assert all(box.contains_region(button.region) for button in screen.query(Button))
        text = screen.query_one("#plan-text")
        assert text.size.height >= 2
        seen = drawn(app)
        assert "about 6 s: 0.5 s a step" in said(app) or size[0] < 60
        await pilot.press("pagedown", "pagedown", "pagedown")
        await pilot.pause()
        seen += drawn(app)
        for label in ("time", "model", "steps", "data", "memory", "disk", "device"):
            assert label in seen or size[0] < 60
        await pilot.press("y")
        assert "steps       12 of 512 tokens" in app.clipboard
        await pilot.press("escape")
        assert len(app.screen_stack) == 1 and not app.trainer.is_busy


async def test_a_long_run_is_offered_detached_first(
    tmp_path: Path, probes: list[FakeProbe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeProbe, "step_s", 1000.0)
    async with opened(tmp_path, "smoke") as (app, pilot):
        screen = await measured(app, pilot, probes)
        assert buttons(screen) == ["[Start detached]", "Start", "Cancel"]
        assert "About 3 h 20: detached, it goes on when you leave." in drawn(app)
        await pilot.press("escape")


async def test_no_button_slips_under_a_moved_focus(
    tmp_path: Path, probes: list[FakeProbe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has moved the focus keeps it, even where it has come back to Start."""
    monkeypatch.setattr(FakeProbe, "step_s", 1000.0)
    async with opened(tmp_path, "smoke") as (app, pilot):
        screen = await plan_screen(app, pilot)
        await pilot.press("right", "left")
        probes[-1].go.set()
        await until(pilot, lambda: screen.pace)
        await pilot.pause()
        assert buttons(screen) == ["[Start]", "Start detached", "Cancel"]
        assert "About 3 h 20" in drawn(app)
        await pilot.press("escape")


async def test_i_shows_the_plan_and_starts_nothing_by_enter(tmp_path: Path, probes: list[FakeProbe]) -> None:
    async with opened(tmp_path, "smoke") as (app, pilot):
        screen = await plan_screen(app, pilot, "i")
        assert buttons(screen) == ["[Close]", "Start", "Start detached"]
        await pilot.press("enter")
        await until(pilot, lambda: probes[-1].is_stopped)
        assert not app.trainer.is_busy and not app.store.all()


async def test_beside_a_live_run_nothing_is_measured(tmp_path: Path, probes: list[FakeProbe]) -> None:
    """`i` works there too; it names the run, and lends an earlier pace where there is one."""
    with live_run(tmp_path) as run:
        async with opened(tmp_path) as (app, pilot):
            await until(pilot, lambda: app.stage_pane("pretrain").is_live)
            screen = await plan_screen(app, pilot, "i")
            await until(pilot, lambda: "both would share the cores" in screen.notice)
            assert buttons(screen) == ["[Close]"] and not probes
            await pilot.press("y")
            assert run.name in app.clipboard.partition("model")[0] and run.name in screen.notice


async def test_while_another_stage_is_trained_here_only_detached_is_offered(trained_copy: Path) -> None:
    async with opened(trained_copy, "smoke") as (app, pilot):
        app.begin(StageRequest("pretrain", "smoke", None, ("steps=1000000",)))
        await until(pilot, lambda: app.trainer.is_busy and app.stage_pane("pretrain").word == "running", 60)
        await pilot.press("2")
        screen = await plan_screen(app, pilot)
        assert buttons(screen) == ["[Close]", "Start detached"]
        assert "Pretrain is being trained in this app" in drawn(app)
        await pilot.press("escape")
        app.trainer.stop(save=False)
        await until(pilot, lambda: not app.trainer.is_busy, 60)


async def test_what_cannot_be_planned_is_said(tmp_path: Path) -> None:
    """The settings are right, but the file that they name is not there."""
    async with opened(tmp_path, "smoke") as (app, pilot):
        pane = app.stage_pane("pretrain")
        await pilot.press("S")
        await until(pilot, lambda: isinstance(app.focused, Input))
        entries = {entry.name: entry for entry in pane.query(Input)}
        entries["data.path"].value = str(tmp_path / "gone")
        entries["data.source"].value = "files"
        await until(pilot, lambda: pane.config and pane.config.data.source == "files")
        pane.action_chart()
        pane.action_start()
        await until(pilot, lambda: "There is no file or folder" in drawn(app))
        await pilot.press("escape")


async def test_a_failed_measurement_is_no_obstacle(
    tmp_path: Path, probes: list[FakeProbe], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = ProbeFailed(what="PyTorch refused: \x1b[2J[b]x[/]", fix="Lower batch.micro_batch.")
    monkeypatch.setattr(FakeProbe, "result", lambda _: failed)
    async with opened(tmp_path, "smoke") as (app, pilot):
        screen = await plan_screen(app, pilot)
        probes[-1].go.set()
        await until(pilot, lambda: "[b]x[/] Lower batch.micro_batch." in said(app))
        assert "not measured" in drawn(app) and "\x1b" not in drawn(app)
        assert buttons(screen)[0] == "[Start]"
        await pilot.press("escape")


def test_a_planner_that_is_left_tells_nothing_more(tmp_path: Path, probes: list[FakeProbe]) -> None:
    told: list[object] = []
    planner = Planner(Runs(tmp_path), PlanRequest("pretrain", "smoke"), told.append)
    planner.leave()
    assert planner.start().join(20) and not told and not probes[0].is_stopped
    probes[0].go.set()


# ---------------------------------------------------------------- started detached


async def test_started_detached_it_is_followed_and_stopped_here(tmp_path: Path) -> None:
    """The run is another process's from its first step; the tab shows it, and the app trains nothing itself."""
    async with opened(tmp_path, "smoke") as (app, pilot):
        pane = app.stage_pane("pretrain")
        settings = ["steps=100000", "validate_every=1000"]
        pane.post_message(StartStage("pretrain", "smoke", None, settings, detached=True))
        await until(pilot, lambda: pane.state and not pane.starting, 60)
        assert "Nothing is pretrained yet" not in drawn(app)
        await until(pilot, lambda: pane.state and pane.state.step > 3 and pane.word == "running", 60)
        assert pane.state and not app.trainer.is_busy and not pane.is_own
        (began,) = [event for event in pane.state.run.events() if isinstance(event, RunStarted)]
        assert began.process_id != os.getpid() and os.getsid(began.process_id) == began.process_id
        assert any("You can leave the app" in notice for notice in app.notices)
        await pilot.press("s", "enter")
        await until(pilot, lambda: pane.word == "stopped" and not pane.is_live, 60)
        (process,) = app._elsewhere
        assert process.wait(20) == 0


async def test_stopped_before_it_has_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stop waits in the run's folder for the process."""
    begun: list[Run] = []

    class Idle:
        def poll(self) -> int | None:
            return None

    def hold(run: Run, on_event: str) -> Idle:
        begun.append(run)
        return Idle()

    monkeypatch.setattr("tui.workers.detached_start.train_detached", hold)
    async with opened(tmp_path, "smoke") as (app, pilot):
        app.post_message(StartStage("pretrain", "smoke", None, [], detached=True))
        await until(pilot, lambda: begun, 60)
        assert app.stage_pane("pretrain").word == "starting"
        await pilot.press("s", "enter")
        await until(pilot, lambda: begun[0].commands_file.exists())
        assert '"Stop"' in begun[0].commands_file.read_text()


async def test_a_process_that_cannot_be_started_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, "smoke") as (app, pilot):
        monkeypatch.setattr("sys.executable", str(tmp_path / "gone"))
        pane = app.stage_pane("pretrain")
        pane.post_message(StartStage("pretrain", "smoke", None, [], detached=True))
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog), 60)
        await pilot.pause()
        assert "No process could be started" in drawn(app) and not pane.starting
        await pilot.press("escape")


def test_a_mistake_in_a_detached_start_is_told_without_a_traceback(tmp_path: Path) -> None:
    told: list[object] = []
    request = StageRequest("finetune", "smoke")
    DetachedStart(Runs(tmp_path), request, told.append, tmp_path).start().leave(30)
    (message,) = told
    assert isinstance(message, DetachedFailed) and "No finished pretrain run" in message.what


async def test_what_is_missing_comes_before_the_plan(tmp_path: Path) -> None:
    async with opened(tmp_path, "smoke") as (app, pilot):
        for key in ("enter", "i"):
            await pilot.press("2", key)
            await pilot.pause()
            assert len(app.screen_stack) == 1 and "Press 1, then Enter" in app.notices[-1]
