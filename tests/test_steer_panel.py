"""The panel that steers: each entry and button gives its command, nonsense gives a sentence, and nothing is lost."""

import pytest
from textual.app import App
from textual.widgets import Button, Input, Static

from core.commands import (
    AddNote,
    Command,
    Pause,
    PlanSchedule,
    Resume,
    SampleNow,
    SaveNow,
    ScaleLearningRate,
    SetLearningRate,
    SetValidationInterval,
)
from tui.figures import count_from
from tui.widgets.steer_panel import SteerPanel, said_of


class Host(App[None]):
    """Nothing but the panel."""

    def __init__(self, at: str = "", is_paused: bool = False) -> None:
        super().__init__()
        self.at = at
        self.is_paused = is_paused
        self.answers: list[Command | None] = []

    def on_mount(self) -> None:
        self.push_screen(SteerPanel(1.2e-3, self.at, self.is_paused), self.answers.append)


@pytest.mark.parametrize(
    ("entry", "text", "command"),
    [
        ("rate", "3e-4", SetLearningRate(learning_rate=3e-4)),
        ("plan", "50M", PlanSchedule(shape="cosine", tokens=50_000_000)),
        ("plan", "", PlanSchedule(shape="cosine")),
        ("interval", "100", SetValidationInterval(steps=100)),
        ("note", " data changed ", AddNote(text="data changed")),
    ],
)
async def test_enter_in_an_entry_gives_its_command(entry: str, text: str, command: Command) -> None:
    app = Host()
    async with app.run_test(size=(60, 20)) as pilot:
        field = app.screen.query_one(f"#steer-{entry}", Input)
        field.focus()
        field.value = text
        await pilot.press("enter")
        assert app.answers == [command] and said_of(command)


@pytest.mark.parametrize(
    ("button", "command"),
    [
        ("half", ScaleLearningRate(factor=0.5)),
        ("double", ScaleLearningRate(factor=2.0)),
        ("linear", PlanSchedule(shape="linear", tokens=300_000)),
        ("constant", PlanSchedule(shape="constant")),
        ("pause", Pause()),
        ("save", SaveNow()),
        ("sample", SampleNow()),
    ],
)
async def test_a_button_gives_its_command(button: str, command: Command) -> None:
    app = Host()
    async with app.run_test(size=(60, 20)) as pilot:
        app.screen.query_one("#steer-plan", Input).value = "300k"
        next(b for b in app.screen.query(Button) if b.name == button).press()
        await pilot.pause()
        assert app.answers == [command] and said_of(command)


async def test_a_waiting_run_is_offered_to_go_on() -> None:
    """The button that pauses lets a paused run go on; all of the panel is on the smallest usual screen."""
    app = Host(is_paused=True)
    async with app.run_test(size=(60, 20)) as pilot:
        await pilot.pause()
        dialog = app.screen.query_one(".dialog")
        assert dialog.region.bottom <= 20 and not dialog.show_vertical_scrollbar
        next(b for b in app.screen.query(Button) if b.name == "pause").press()
        await pilot.pause()
        assert app.answers == [Resume()]


@pytest.mark.parametrize(
    ("entry", "text", "words"),
    [
        ("rate", "nan", "is not a rate"),
        ("rate", "2", "is not a rate"),
        ("plan", "soon", "is not a number of tokens"),
        ("plan", "0", "is not a number of tokens"),
        ("interval", "-5", "is not a number of steps"),
        ("interval", "", "is not a number of steps"),
        ("note", "  ", "note is empty"),
    ],
)
async def test_nonsense_gives_a_sentence_and_keeps_the_panel(entry: str, text: str, words: str) -> None:
    app = Host(at=entry if entry != "plan" else "")
    async with app.run_test(size=(60, 20)) as pilot:
        field = app.screen.query_one(f"#steer-{entry}", Input)
        if entry != "plan":
            assert field.has_focus
        field.focus()
        field.value = text
        await pilot.press("enter")
        assert words in str(app.screen.query_one("#steer-problem", Static).visual)
        assert field.value == text and not app.answers
        await pilot.press("escape")
        assert app.answers == [None]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("300k", 300_000),
        ("1.5M", 1_500_000),
        ("2e6", 2_000_000),
        ("1_000", 1000),
        ("7", 7),
        ("k", None),
        ("", None),
        ("-1", None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_counts_are_read_as_people_write_them(text: str, count: int | None) -> None:
    assert count_from(text) == count
