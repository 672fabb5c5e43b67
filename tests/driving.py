"""Drives the app for the tests that want it whole: opens it, waits for states, reads the screen, makes runs."""

import asyncio
import os
import string
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from textual import events
from textual.keys import _character_to_key
from textual.pilot import Pilot

from core.commands import Command, Pause, Resume, SampleNow, SaveNow, Stop
from core.config import STAGES, load_stage
from core.event_log import Follower
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
from core.runs import Run, Runs
from tui.app import BbtuiApp


async def until(pilot: Pilot[None], holds: Callable[[], object], seconds: float = 10) -> None:
    """Wait for the screen to come to a state."""
    async with asyncio.timeout(seconds):
        while not holds():
            await pilot.pause(0.01)


_CHARACTERS = {character: _character_to_key(character) for character in string.printable[:95]}
_TYPED = {name: character for character, name in _CHARACTERS.items()}


@asynccontextmanager
async def opened(
    root: Path, preset: str = "quickstart", size: tuple[int, int] = (80, 24)
) -> AsyncIterator[tuple[BbtuiApp, Pilot[None]]]:
    """The app in a terminal of that size, every tab mounted, the runs under the root found."""
    app = BbtuiApp(root, preset)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.query("#runs"))
        expected = {stage for stage in STAGES if app.store.all(stage)}
        await until(pilot, lambda: all(shown(app, stage) for stage in expected))
        yield app, pilot


def key_event(key: str) -> events.Key:
    """What the terminal's driver makes of a key, by Textual's name or as the character that it types."""
    name = _CHARACTERS.get(key, key)
    return events.Key(name, key if name != key or len(key) == 1 else _TYPED.get(key))


async def strike(app: BbtuiApp, pilot: Pilot[None], *keys: str) -> None:
    """Press keys while a run trains: `pilot.press` waits for an idle processor, which there is none then."""
    for key in keys:
        app.post_message(key_event(key))
        await pilot.pause(0)


def shown(app: BbtuiApp, stage: str) -> bool:
    """Whether the stage's tab shows a run and knows its state."""
    state = app.stage_pane(stage).state
    return state is not None and state.started is not None and state.is_known


def drawn(app: BbtuiApp) -> str:
    """Every character that is on the screen now."""
    return "\n".join("".join(part.text for part in strip) for strip in app.screen._compositor.render_strips())


def started(run: Run, step: int = 0) -> RunStarted:
    return RunStarted(
        run=run.id,
        stage=run.stage,
        parent="",
        parameters=3_100_000,
        resumed_from_step=step,
        steps=100,
        device="cpu",
        precision="bfloat16",
        process_id=os.getpid(),
    )


def measured(step: int, loss: float = 4.0) -> TrainMeasured:
    return TrainMeasured(
        step=step, tokens=step * 4096, loss=loss, learning_rate=1e-3, grad_norm=0.4, tokens_per_s=5900.0
    )


def a_run(root: Path, events: list[Event], stage: str = "pretrain") -> Run:
    """A run folder whose log holds a start, some steps and these events."""
    run = Runs(root).create(load_stage("quickstart", stage, root))
    run.append(started(run))
    for step in range(1, 41):
        run.append(measured(step, 8.0 - step / 10))
    run.append(Validated(step=40, tokens=40 * 4096, loss=4.2, bits_per_byte=1.6, elapsed_s=0.5))
    for event in events:
        run.append(event)
    return run


def ended(reason: str) -> RunEnded:
    return RunEnded(step=40, reason=reason, message="", elapsed_s=60.0)


@contextmanager
def live_run(root: Path) -> Iterator[Run]:
    """A run that someone else trains: its lock is held."""
    run = a_run(root, [])
    with run.held():
        yield run


def told(run: Run) -> list[Command]:
    return Follower(run.commands_file).commands()


_OTHERS = (Stop, Pause, Resume, SaveNow, SampleNow)
_STEERED = (LearningRateChanged, SchedulePlanned, ValidationIntervalChanged, NoteAdded)


def interventions(run: Run) -> list[Event]:
    """What steering commands came to, one event each, refused ones included."""
    return [event for event in run.present_events() if isinstance(event, (*_STEERED, Warned))]


def told_at_steps(run: Run) -> dict[int, list[Command]]:
    """The run's commands by the step after which they were obeyed, as its events name it."""
    found: dict[int, list[Command]] = defaultdict(list)
    steering = [command for command in told(run) if not isinstance(command, _OTHERS)]
    for command, event in zip(steering, interventions(run), strict=False):
        if isinstance(event, _STEERED):
            found[event.step - 1].append(command)
    return found
