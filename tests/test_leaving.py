"""Ways to leave the app while it trains: the terminal is as it was, and no finished step is lost."""

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.commands import Stop
from core.events import RunStarted, TrainMeasured
from core.launch import start
from core.runs import Run, Runs
from core.train import train
from driving import opened, until
from pseudo_terminal import PseudoTerminal, last_step, reasons, saved_step
from tui.detached import train_detached

# Checkpoints are far apart, so that only one written on the way out can hold the last step.
ENDLESS = ["steps=1000000", "checkpoint_every=100000", "validate_every=100000", "samples.every=0"]
SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
CTRL_C = "\x03"


@pytest.fixture(scope="module")
def begun_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a run that was stopped at its step 2 and has almost all of its steps before it."""
    root = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("BBTUI_DATA", raising=False)
        run = start(Runs(root), "smoke", "pretrain", None, ENDLESS)
        for event in train(run.config, run):
            if isinstance(event, TrainMeasured) and event.step == 2:
                run.tell(Stop())
    return root


@pytest.fixture
def run(begun_root: Path, tmp_path: Path) -> Run:
    """A copy of that run, to be resumed."""
    return Runs(Path(shutil.copytree(begun_root, tmp_path / "root"))).all("pretrain")[0]


def root_of(run: Run) -> Path:
    return run.folder.parents[2]


@contextlib.contextmanager
def training(run: Run, patch: str = "", **options: bool) -> Iterator[PseudoTerminal]:
    """The app in a terminal, the run resumed by its key and some steps further."""
    begun_at = last_step(run)
    with PseudoTerminal(root_of(run), patch, **options) as terminal:
        terminal.until_shown("stopped")
        terminal.press("R")
        terminal.until(lambda: last_step(run) > begun_at)
        yield terminal


def assert_left_well(terminal: PseudoTerminal, run: Run, exit_code: int, reason: str) -> None:
    """It ends in time, with this code, the terminal usable, the last finished step saved, the reason in the log."""
    assert terminal.exit_code(10) == exit_code
    assert terminal.problems() == []
    assert not run.is_held()
    assert saved_step(run) == last_step(run) > 2
    assert reasons(run)[1:] == [reason]


# ---------------------------------------------------------------- by keys


def test_quit_stops_and_saves(run: Run) -> None:
    """q, then Enter on the dialog's first button."""
    with training(run) as terminal:
        terminal.press("q")
        terminal.until_shown("Quit while training?")
        terminal.press("\r")
        assert_left_well(terminal, run, 0, "stopped")


def test_ctrl_c_twice_stops_and_saves(run: Run) -> None:
    """The first press asks as q does, the second is an interrupt; a third, while it saves, changes nothing."""
    with training(run) as terminal:
        terminal.press(CTRL_C)
        terminal.until_shown("Quit while training?")
        terminal.press(CTRL_C, CTRL_C)
        assert_left_well(terminal, run, 130, "SIGINT")


def test_ctrl_c_leaves_an_idle_app_on_the_second_press(tmp_path: Path) -> None:
    """One press by mistake costs nothing and says what a second does."""
    with PseudoTerminal(tmp_path) as terminal:
        terminal.until_shown("Quickstart")
        terminal.press(CTRL_C)
        terminal.until_shown("Press ctrl+c again to leave.")
        assert terminal.process.poll() is None
        terminal.press(CTRL_C)
        assert terminal.exit_code() == 130 and terminal.problems() == []


async def test_ctrl_c_copies_what_is_selected(trained_root: Path) -> None:
    """In the prompt box it is the copy key as long as something is selected there."""
    async with opened(trained_root) as (app, pilot):
        await pilot.press("5")
        await until(pilot, lambda: app.focused is not None and app.focused.id == "chat-box")
        await pilot.press(*"what", "shift+home", "ctrl+c")
        assert app.clipboard == "what" and not app.notices
        await pilot.press("right", "ctrl+c")
        assert app.notices[-1].endswith("Press ctrl+c again to leave.") and app.is_running


# ---------------------------------------------------------------- by signals and a lost terminal


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_and_saves(run: Run, number: signal.Signals) -> None:
    """The exit code says which signal it was."""
    with training(run) as terminal:
        terminal.process.send_signal(number)
        assert_left_well(terminal, run, SIGNALS[number], number.name)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_leaves_an_idle_app(tmp_path: Path, number: signal.Signals) -> None:
    """With nothing to save it ends at once."""
    with PseudoTerminal(tmp_path) as terminal:
        terminal.until_shown("Quickstart")
        terminal.process.send_signal(number)
        assert terminal.exit_code() == SIGNALS[number] and terminal.problems() == []


def test_a_signal_before_the_first_picture_leaves_a_usable_terminal(tmp_path: Path) -> None:
    """It comes when the terminal is already in the app's hands and the app does not listen yet."""
    patch = """
import os, signal
from tui.frame import Frame
def compose(self, original=Frame.compose):
    os.kill(os.getpid(), signal.SIGTERM)
    yield from original(self)
Frame.compose = compose
"""
    with PseudoTerminal(tmp_path, patch) as terminal:
        assert terminal.exit_code(30) == 143 and terminal.problems() == []


@pytest.mark.parametrize("is_controlling", [True, False], ids=["hang-up", "reads fail"])
def test_closing_the_terminal_stops_and_saves(run: Run, is_controlling: bool) -> None:
    """Whether the system sends a hang-up or the terminal is just gone."""
    with training(run, is_controlling=is_controlling) as terminal:
        terminal.close()
        assert terminal.exit_code(10) == 129
    assert saved_step(run) == last_step(run) > 2
    assert reasons(run)[1:] == ["SIGHUP"]


# ---------------------------------------------------------------- by errors


def test_an_error_in_a_widget_saves_the_run_and_prints_no_traceback(run: Run) -> None:
    """The screen closes with one sentence and the log's path; the run can go on."""
    patch = """
from tui.widgets.loss_chart import LossChart
def render(self, original=LossChart.render):
    state = self.app.stage_pane("pretrain").state
    if state and state.step > 4:
        raise ZeroDivisionError("a chart that cannot be drawn")
    return original(self)
LossChart.render = render
"""
    with training(run, patch) as terminal:
        assert_left_well(terminal, run, 1, "interrupted")
        said = terminal.written.rpartition(b"\x1b[?1049l")[2].decode()
    log = root_of(run) / ".data" / "stderr.log"
    assert "a chart that cannot be drawn" in said.replace("\r\n", " ") and run.name in said
    assert str(log) in said.replace("\r\n", "") and "Traceback" in log.read_text()


def test_an_error_in_the_trainer_saves_the_run_and_leaves_the_app_usable(run: Run) -> None:
    """A dialog says it and offers to resume; the app goes on, and leaves as ever."""
    patch = """
from core.workbench import Workbench
def loss_sum(self, batch, original=Workbench.loss_sum):
    if self.state.step == 6 and not hasattr(Workbench, "has_failed"):
        Workbench.has_failed = True
        raise RuntimeError("a kernel that does not work")
    return original(self, batch)
Workbench.loss_sum = loss_sum
"""
    with training(run, patch) as terminal:
        terminal.until_shown("Pretrain failed", "a kernel that does not work", "Resume from the last")
        assert saved_step(run) == last_step(run) == 6 and reasons(run)[1:] == ["failed"]
        terminal.press("\r")
        terminal.until(lambda: last_step(run) > 6)
        terminal.press("q")
        terminal.until_shown("Quit while training?")
        terminal.press("\r")
        assert terminal.exit_code() == 0 and terminal.problems() == []
    assert reasons(run)[1:] == ["failed", "stopped"] and saved_step(run) == last_step(run)
    assert [e.resumed_from_step for e in run.events() if isinstance(e, RunStarted)] == [0, 2, 6]


def test_a_killed_trainer_is_told_within_seconds(run: Run) -> None:
    """The app that watches another process says that it is gone, offers to resume, and leaves as ever."""
    process = train_detached(run)
    try:
        with PseudoTerminal(root_of(run)) as terminal:
            terminal.until_shown("another process")
            terminal.until(lambda: last_step(run) > 2)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            killed_at = time.monotonic()
            terminal.until_shown("died: Its process is gone", "interrupted", seconds=10)
            assert time.monotonic() - killed_at < 5
            terminal.press("R")
            terminal.until(lambda: len([e for e in run.events() if isinstance(e, RunStarted)]) == 3)
            terminal.until(lambda: not reasons(run)[1:])
            terminal.press(CTRL_C, CTRL_C)
            assert terminal.exit_code() == 130 and terminal.problems() == []
    finally:
        process.kill()
        process.wait()


# ---------------------------------------------------------------- at any time


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("is_app", [True, False], ids=["app", "command line"])
def test_a_signal_at_any_time_loses_no_step(run: Run, number: signal.Signals, is_app: bool) -> None:
    """Fifty times, from the first import to some steps into the training, each time from where the last one ended."""
    draw = random.Random(int(number))
    arguments = () if is_app else ("train", "pretrain", "--resume", run.id)
    shown_as, trained = (b"stopped", number.name.encode()), 0
    for _ in range(50):
        started_at, wait_s, is_resumed = time.monotonic(), draw.uniform(0.0, 8.0), not is_app
        before = len(reasons(run))
        with PseudoTerminal(root_of(run), arguments=arguments) as terminal:
            while time.monotonic() < started_at + wait_s:
                if not is_resumed and any(word in terminal.written for word in shown_as):
                    terminal.press("R")
                    is_resumed = True
                time.sleep(0.01)
            terminal.process.send_signal(number)
            code = terminal.exit_code(10)
            # Before Python has come to our first line, a signal does what it does to any program.
            assert code == SIGNALS[number] or (code == -number and not terminal.written.count(b"\x1b[?1049h"))
            assert terminal.problems() == [] or code == -number
        assert not run.is_held() and saved_step(run) == last_step(run)
        assert all(reason == number.name for reason in reasons(run)[max(before, 1) :])
        trained += len(reasons(run)) > before
    assert trained >= 10
