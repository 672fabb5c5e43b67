"""What a terminal app is expected to do, where no tab's own tests hold it: focus, colours, sizes, errors, idleness."""

import re
import time
from pathlib import Path

import psutil
import pytest
from rich.style import Style
from textual.command import CommandList
from textual.geometry import Region
from textual.pilot import Pilot
from textual.widget import Widget

from core.config import STAGES
from driving import a_run, drawn, ended, live_run, opened, until
from pseudo_terminal import PseudoTerminal
from tui.app import BbtuiApp
from tui.widgets.dialogs import ChoiceDialog

TABS = (*STAGES, "chat", "eval", "runs")
_COLOUR = re.compile(rb"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[0-9;]*)?m")


def looks(app: BbtuiApp, place: Region) -> list[list[tuple[str, Style | None]]]:
    """The cells of a part of the screen: characters, and how they stand out."""
    lines = app.screen._compositor.render_strips()
    cells = [[(char, part.style) for part in line for char in part.text] for line in lines]
    return [line[place.x : place.right] for line in cells[place.y : place.bottom]]


# ---------------------------------------------------------------- by keyboard alone


@pytest.mark.parametrize("tab", TABS)
async def test_tab_goes_to_everything_and_the_focus_is_seen_without_colour(
    trained_root: Path, tab: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every control of a tab is reached by Tab, and wherever the focus is, the screen shows it by more than colour."""
    monkeypatch.setenv("NO_COLOR", "1")
    # High enough for all settings: nothing is scrolled away.
    async with opened(trained_root, "smoke", size=(80, 70)) as (app, pilot):
        await pilot.press(str(TABS.index(tab) + 1))
        await until(pilot, lambda: app.focused is not None)
        await everything_is_reached(app, pilot)
        if tab == "pretrain":
            await pilot.press("S")
            await until(pilot, lambda: app.stage_pane(tab).body.current == "settings")
            await pilot.pause()
            await everything_is_reached(app, pilot)


async def everything_is_reached(app: BbtuiApp, pilot: Pilot[None]) -> None:
    chain = app.screen.focus_chain
    assert chain
    await pilot.wait_for_scheduled_animations()
    for _ in list(chain):
        widget = app.focused
        assert widget in chain
        chain.remove(widget)
        place = place_of(widget)
        focused = looks(app, place)
        await pilot.press("tab")
        await pilot.wait_for_scheduled_animations()
        # Alone it keeps the focus.
        if app.focused is not widget:
            assert looks(app, place) != focused, f"one cannot see that the focus is on {widget!r}"
    assert not chain


def place_of(widget: Widget) -> Region:
    """Where the focus on a widget is to be seen: on itself, or on the row or frame that holds nothing else for it."""
    around = widget.parent
    if isinstance(around, Widget) and [it for it in around.walk_children() if it.focusable] == [widget]:
        return around.region
    return widget.region


# ---------------------------------------------------------------- colours


def test_no_colour_means_none(trained_root: Path) -> None:
    """With NO_COLOR not one sequence sets a colour, on any tab; what is shown is the same."""
    with PseudoTerminal(trained_root, NO_COLOR="1") as terminal:
        terminal.until_shown("completed")
        # The chat last: its prompt box takes every key.
        for key, words in (
            ("2", "finetune"),
            ("7", "checkpoints"),
            ("6", "Evaluate"),
            ("5", "General answers"),
        ):
            terminal.press(key)
            terminal.until_shown(words)
        assert _COLOUR.search(terminal.written) is None
    with PseudoTerminal(trained_root) as terminal:
        terminal.until_shown("completed")
        assert _COLOUR.search(terminal.written)


async def test_the_palette_s_chosen_line_is_seen_without_colour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Going down changes the list's look."""
    monkeypatch.setenv("NO_COLOR", "1")
    async with opened(tmp_path) as (app, pilot):
        await pilot.press("ctrl+p")
        await until(
            pilot, lambda: app.screen.query(CommandList) and app.screen.query_one(CommandList).options
        )
        pictures = []
        for _ in range(2):
            await pilot.press("down")
            await pilot.wait_for_scheduled_animations()
            pictures.append(looks(app, app.screen.query_one(CommandList).region))
        assert pictures[0] != pictures[1]


@pytest.mark.parametrize("theme", ["textual-light", "solarized-light", "textual-dark"])
async def test_words_stand_out_from_their_ground(trained_root: Path, theme: str) -> None:
    """In light themes too, no word of a training tab or of the runs is fainter than 3 to 1."""
    async with opened(trained_root, "smoke") as (app, pilot):
        app.theme = theme
        for key in "127":
            await pilot.press(key)
            await pilot.wait_for_scheduled_animations()
            for line in app.screen._compositor.render_strips():
                for part in line:
                    if any(char.isalnum() for char in part.text) and part.style:
                        assert contrast(part.style) >= 3, f"{part.text!r} can hardly be read"


@pytest.mark.parametrize("theme", ["textual-light", "solarized-light", "textual-dark"])
async def test_the_two_chats_are_told_apart_by_frames_that_can_be_seen(
    trained_root: Path, theme: str
) -> None:
    """Each has a frame, and neither is fainter than 3 to 1."""
    async with opened(trained_root, "smoke", (110, 30)) as (app, pilot):
        app.theme = theme
        await pilot.press("5")
        await pilot.wait_for_scheduled_animations()
        frames = [
            part.style
            for line in app.screen._compositor.render_strips()
            for part in line
            if any(char in "╭╮╰╯┏┓┗┛" for char in part.text) and part.style
        ]
        assert len({style.color for style in frames}) > 1
        for style in frames:
            assert contrast(style) >= 3


def contrast(style: Style) -> float:
    """How far the colours of characters and ground stand apart, from 1 to 21. Source: WCAG 2, relative luminance."""
    assert style.color and style.bgcolor
    luminances = []
    for colour in (style.color, style.bgcolor):
        parts = [part / 255 for part in colour.get_truecolor()]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        luminances.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    low, high = sorted(luminances)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("reason", ["completed", "stopped", "failed", ""])
async def test_a_state_has_a_sign_and_a_word(tmp_path: Path, reason: str) -> None:
    """No state is told by colour alone."""
    a_run(tmp_path, [ended(reason)] if reason else [])
    sign = {"completed": "✓", "stopped": "◐", "failed": "✗", "": "◐"}[reason]
    async with opened(tmp_path) as (app, pilot):
        await until(pilot, lambda: f"{sign} {reason or 'interrupted'}" in drawn(app))


async def test_train_and_validation_differ_by_sign(tmp_path: Path) -> None:
    """The two lines have markers of their own, and the line of figures says which is which."""
    a_run(tmp_path, [ended("stopped")])
    async with opened(tmp_path) as (app, pilot):
        await until(pilot, lambda: "● val" in drawn(app))
        assert "train" in drawn(app) and "●" in drawn(app).partition("● val")[2]


# ---------------------------------------------------------------- sizes


async def test_two_answers_stand_side_by_side_from_100_columns(trained_root: Path) -> None:
    """Below that one above the other; where there is room for one only, a key changes it."""
    async with opened(trained_root, "smoke", size=(100, 30)) as (app, pilot):
        await pilot.press("5")
        await until(pilot, lambda: app.pane is not None and app.pane.id == "chat")
        await pilot.pause()
        left, right = (app.query_one(f"#chat-{name}").region for name in ("left", "right"))
        assert left.y == right.y and left.right <= right.x and left.width == right.width
        await pilot.resize_terminal(80, 24)
        left, right = (app.query_one(f"#chat-{name}").region for name in ("left", "right"))
        assert left.x == right.x and left.bottom <= right.y
        await pilot.resize_terminal(60, 20)
        shown = [app.query_one(f"#chat-{name}").display for name in ("left", "right")]
        assert sum(shown) == 1
        await pilot.press("ctrl+o")
        assert [app.query_one(f"#chat-{name}").display for name in ("left", "right")] == shown[::-1]


# ---------------------------------------------------------------- errors


async def test_an_error_names_the_fix_the_log_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed run: what happened, a button that does something about it, a copy, the log's path."""
    from core.workbench import Workbench
    from tui.workers.training import StageRequest

    def loss_sum(self: Workbench, batch: object, original=Workbench.loss_sum) -> object:  # type: ignore[no-untyped-def]
        if self.state.step == 3:
            raise RuntimeError("a kernel that does not work")
        return original(self, batch)

    monkeypatch.setattr(Workbench, "loss_sum", loss_sum)
    async with opened(tmp_path, "smoke") as (app, pilot):
        app.begin(StageRequest("pretrain", "smoke"))
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog), 60)
        await pilot.pause()
        dialog = app.screen
        assert isinstance(dialog, ChoiceDialog)
        assert [answer.name for answer in dialog.answers] == ["resume", "cancel", "copy"]
        run = app.store.all("pretrain")[0]
        log = run.folder / "stderr.log"
        assert "a kernel that does not work" in dialog.text and str(log) in dialog.text
        assert "Traceback" not in drawn(app) and "Traceback" in log.read_text()
        await pilot.press("y")
        assert "a kernel that does not work" in app.clipboard and str(log) in app.clipboard


# ---------------------------------------------------------------- quick, and idle


@pytest.mark.long
def test_the_first_picture_comes_at_once_and_an_idle_app_costs_nothing(trained_root: Path) -> None:
    """Within a second of the start on a quiet machine; then less than a hundredth of a core over ten seconds."""
    begun_at = time.perf_counter()
    with PseudoTerminal(trained_root) as terminal:
        assert terminal.arrival("Pretrain") - begun_at < 1.0
        terminal.until_shown("completed")
        time.sleep(5)
        process = psutil.Process(terminal.process.pid)
        before = sum(process.cpu_times()[:2])
        time.sleep(10)
        assert sum(process.cpu_times()[:2]) - before < 0.1


async def test_a_live_run_is_drawn_four_times_a_second_at_most(tmp_path: Path) -> None:
    """However fast its steps come."""
    from driving import measured
    from tui.widgets.loss_chart import LossChart

    with live_run(tmp_path) as run:
        async with opened(tmp_path) as (app, pilot):
            pane = app.stage_pane("pretrain")
            await until(pilot, lambda: pane.is_live)
            before, begun_at = pane.query_one(LossChart).drawings, time.monotonic()
            for step in range(41, 141):
                run.append(measured(step))
                await pilot.pause(0.01)
            await until(pilot, lambda: pane.state and pane.state.step == 140)
            drawings = pane.query_one(LossChart).drawings - before
            assert 1 <= drawings <= 4 * (time.monotonic() - begun_at) + 2
