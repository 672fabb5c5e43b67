"""Storms: every action in every situation, and thousands of random keys, clicks and sizes while a run trains."""

import asyncio
import errno
import importlib
import pkgutil
import random
import string
import subprocess
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.binding import Binding
from textual.dom import DOMNode
from textual.geometry import Size
from textual.pilot import Pilot

import tui
from core.commands import (
    AddNote,
    Command,
    PlanSchedule,
    ScaleLearningRate,
    SetLearningRate,
    SetValidationInterval,
)
from core.events import TrainMeasured
from core.launch import start
from core.runs import Run, Runs
from core.train import train
from driving import (
    a_run,
    drawn,
    ended,
    interventions,
    key_event,
    live_run,
    opened,
    strike,
    told,
    told_at_steps,
    until,
)
from tui.app import BbtuiApp
from tui.panes.stage import StagePane
from tui.widgets.steer_panel import SteerPanel
from tui.workers.training import StageRequest

LEAVE_THE_APP = {"quit", "interrupt"}
END_THE_RUN = {"stop", "detach"}
"""Left out of the storm, by action, so that whatever key or button leads to it is left out."""
SETTINGS = (
    "steps=1000000",
    "checkpoint_every=1000",
    "validate_every=500",
    "samples.every=0",
    "batch.tokens=2048",
)
OTHER_KEYS = ["tab", "shift+tab", "up", "down", "left", "right", "pageup", "pagedown", "home", "end", "space"]


def forbid(monkeypatch: pytest.MonkeyPatch, kind: type[DOMNode], actions: set[str]) -> None:
    """Let these actions do nothing, whatever asks for them: a key, a button, a hint, the palette."""
    allowed = kind.check_action

    def check_action(self: DOMNode, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action not in actions and allowed(self, action, parameters)

    monkeypatch.setattr(kind, "check_action", check_action)


# ---------------------------------------------------------------- every action


@pytest.mark.parametrize("situation", ["empty", "over", "live"])
async def test_every_action_of_the_palette_can_be_run(
    tmp_path: Path, situation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has help and a key, and raises nothing, whether there is no run, one that is over, or a live one."""
    forbid(monkeypatch, BbtuiApp, LEAVE_THE_APP)
    # What would train is only noted here; that it does, others test.
    begun: list[StageRequest] = []
    monkeypatch.setattr(BbtuiApp, "begin", lambda self, request: begun.append(request))
    monkeypatch.setattr(BbtuiApp, "action_quickstart", lambda self: begun.append(StageRequest("pretrain")))
    if situation == "live":
        with live_run(tmp_path) as run:
            await run_every_action(tmp_path)
            assert {type(command) for command in told(run)} >= {ScaleLearningRate}
        return
    if situation == "over":
        a_run(tmp_path, [ended("stopped")])
    await run_every_action(tmp_path)
    assert begun


async def run_every_action(root: Path) -> None:
    async with opened(root, "smoke") as (app, pilot):
        for title in [command.title for command in app.get_system_commands(app.screen)]:
            command = next(c for c in app.get_system_commands(app.screen) if c.title == title)
            assert command.help.strip(), title
            result = command.callback()
            if result is not None:
                await result  # type: ignore[misc]
            await pilot.pause()
            drawn(app)
            for _ in range(5):
                if len(app.screen_stack) > 1:
                    await pilot.press("escape")
            assert len(app.screen_stack) == 1, f"Escape does not close what {title!r} opens"
        assert app.is_running


def all_bindings() -> Iterator[tuple[str, str, str]]:
    """(key, class, action) of every binding that this project makes, wherever it stands."""
    for module in pkgutil.walk_packages(tui.__path__, "tui."):
        importlib.import_module(module.name)
    kinds: list[type[DOMNode]] = [DOMNode]
    for kind in kinds:
        kinds += [sub for sub in kind.__subclasses__() if sub not in kinds]
        if kind.__module__.startswith("tui."):
            for binding in Binding.make_bindings(kind.__dict__.get("BINDINGS", ())):
                yield binding.key, kind.__name__, binding.action


# ---------------------------------------------------------------- a storm


class Storm:
    """A seeded walk: keys, printable characters, clicks and sizes; the last events are kept for a failure.

    Events are posted as the terminal's driver posts them: Pilot waits for a processor that is idle, which it never
    is while a run trains.
    """

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._keys = sorted({key for key, *_ in all_bindings()} | set(OTHER_KEYS))
        self.last: deque[str] = deque(maxlen=60)

    async def blow(self, app: BbtuiApp, pilot: Pilot[None], num_keys: int, num_resizes: int) -> None:
        """So many keys and sizes in a random order, and now and then a click."""
        kinds = ["key"] * num_keys + ["resize"] * num_resizes + ["click"] * (num_keys // 20)
        self._draw.shuffle(kinds)
        for number, kind in enumerate(kinds):
            {"key": self._press, "resize": self._resize, "click": self._click}[kind](app)
            await asyncio.sleep(0)
            if number % 10 == 0:
                await pilot._wait_for_screen()
            assert app._exception is None and app.is_running, f"after {' '.join(self.last)}"
        await pilot._wait_for_screen()

    def _press(self, app: BbtuiApp) -> None:
        key = self._draw.choice(string.printable[:95] if self._draw.random() < 0.3 else self._keys)
        self.last.append(key)
        app.post_message(key_event(key))

    def _resize(self, app: BbtuiApp) -> None:
        size = Size(self._draw.randint(1, 140), self._draw.randint(1, 50))
        self.last.append(f"{size.width}x{size.height}")
        assert app._driver is not None
        app._driver._size = size
        app.post_message(events.Resize(size, size))

    def _click(self, app: BbtuiApp) -> None:
        x, y = self._draw.randrange(app.size.width), self._draw.randrange(app.size.height)
        self.last.append(f"click {x},{y}")
        for kind in (events.MouseDown, events.MouseUp):
            app.post_message(kind(None, x, y, 0, 0, 1, False, False, False, x, y))


def losses(run: Run) -> dict[int, float]:
    return {event.step: event.loss for event in run.present_events() if isinstance(event, TrainMeasured)}


def headless_losses(
    root: Path, until_step: int, told_at: dict[int, list[Command]] | None = None
) -> dict[int, float]:
    """The same run's without the app; commands are given once their step is done, 0 before the first."""
    run = start(Runs(root), "smoke", "pretrain", None, list(SETTINGS))
    waiting = list((told_at or {}).get(0, []))

    def poll() -> list[Command]:
        given, waiting[:] = list(waiting), []
        return given

    for event in train(run.config, run, poll):
        if isinstance(event, TrainMeasured):
            waiting += (told_at or {}).get(event.step, [])
            if event.step == until_step:
                break
    return losses(run)


def no_process(*_: object, **__: object) -> None:
    """A storm that detaches something must not leave a training behind."""
    raise OSError(errno.EAGAIN, "no process in a storm")


async def storm_over_a_training(
    root: Path, monkeypatch: pytest.MonkeyPatch, num_keys: int, num_resizes: int, seed: int
) -> None:
    forbid(monkeypatch, BbtuiApp, LEAVE_THE_APP)
    forbid(monkeypatch, StagePane, END_THE_RUN)
    storm = Storm(seed)
    async with opened(root, "smoke") as (app, pilot):
        app.begin(StageRequest("pretrain", "smoke", None, SETTINGS))
        await until(pilot, lambda: app.trainer.job and app.trainer.job.run, 60)
        assert app.trainer.job is not None and app.trainer.job.run is not None
        run = app.trainer.job.run
        await until(pilot, lambda: losses(run), 60)
        with monkeypatch.context() as patch:
            # Whatever is commanded is thrown away: this storm looks only at what watching does to a run.
            patch.setattr(Run, "tell", lambda self, command: None)
            patch.setattr(subprocess, "Popen", no_process)
            await storm.blow(app, pilot, num_keys, num_resizes)
        assert app.trainer.job is not None and app.trainer.job.run == run, " ".join(storm.last)
        # How many steps fell into the storm depends on the machine; that it did not stop the training does not.
        during = len(losses(run))
        assert during > 1
        await until(pilot, lambda: len(losses(run)) > during + 2, 60)
        app.trainer.stop(save=False)
        await until(pilot, lambda: not app.trainer.is_busy, 60)
    seen = losses(run)
    assert headless_losses(root, max(seen)) == seen


async def test_a_storm_raises_nothing_and_changes_no_loss(
    trained_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1,000 keys and 150 sizes while a run trains: its losses are the headless run's, bit for bit."""
    await storm_over_a_training(trained_copy, monkeypatch, 1_000, 150, seed=7)


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_a_long_storm_raises_nothing_and_changes_no_loss(
    trained_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10,000 keys and 1,000 sizes."""
    await storm_over_a_training(trained_copy, monkeypatch, 10_000, 1_000, seed=11)


# ---------------------------------------------------------------- commands, replayed


async def test_what_is_commanded_from_the_keyboard_replays_headless(tmp_path: Path) -> None:
    """Rate, plan, interval, note, keyed in while it trains: a headless run told the same is the same."""
    async with opened(tmp_path, "smoke") as (app, pilot):
        app.begin(StageRequest("pretrain", "smoke", None, SETTINGS))
        pane = app.stage_pane("pretrain")
        await until(pilot, lambda: pane.state and pane.state.step > 2, 60)
        assert pane.state is not None
        run = pane.state.run
        keyed: list[tuple[Any, ...]] = [
            ("minus",),
            ("r", "h"),
            ("n", *"warm", "enter"),
            ("v", *"7", "enter"),
            ("r", "tab", "tab", "tab", *"1e-3", "enter"),
            ("r", *["tab"] * 5, *"300k", "enter"),
            ("minus",),
        ]
        for number, keys in enumerate(keyed, 1):
            await strike(app, pilot, keys[0])
            if keys[1:]:
                await until(pilot, lambda: isinstance(app.screen, SteerPanel) and app.focused)
                await strike(app, pilot, *keys[1:])
            async with asyncio.timeout(20):
                while len(interventions(run)) < number:
                    await asyncio.sleep(0.1)  # the log is read whole each time
        app.trainer.stop(save=False)
        await until(pilot, lambda: not app.trainer.is_busy, 60)
    kinds = [type(command) for command in told(run) if type(command).__name__ != "Stop"]
    assert kinds == [
        ScaleLearningRate,
        ScaleLearningRate,
        AddNote,
        SetValidationInterval,
        SetLearningRate,
        PlanSchedule,
        ScaleLearningRate,
    ]
    seen = losses(run)
    assert headless_losses(tmp_path, max(seen), told_at_steps(run)) == seen
