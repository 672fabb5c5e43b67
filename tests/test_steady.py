"""Hasty keys: what Textual's own screens would fail on ends neither the app nor a training."""

import asyncio
import contextlib
from pathlib import Path

import pytest
from textual.command import CommandList, CommandPalette
from textual.screen import ModalScreen
from textual.widgets import Button
from textual.worker import WorkerFailed

from driving import key_event, opened, until
from tui.widgets.dialogs import Answer, ChoiceDialog


async def test_a_page_key_in_a_list_without_room_does_nothing(tmp_path: Path) -> None:
    """The palette's list has entries, but no line yet to count pages from."""
    async with opened(tmp_path, size=(1, 1)) as (app, pilot):
        await pilot.press("ctrl+p", "down")
        assert isinstance(app.screen, CommandPalette)
        await until(pilot, lambda: app.screen.query_one(CommandList).highlighted is not None)
        await pilot.press("pageup", "pagedown", "escape")
        assert app.is_running and len(app.screen_stack) == 1


async def test_two_quick_answers_are_one(tmp_path: Path) -> None:
    """The second press of a button that is gone takes nothing else away and answers nothing."""
    answers: list[str | None] = []
    async with opened(tmp_path) as (app, pilot):
        for title in ("below", "above"):
            app.push_screen(ChoiceDialog(title, "", [Answer("yes", "Yes")]), answers.append)
            await pilot.pause()
        button = app.screen.query_one(Button)
        button.post_message(Button.Pressed(button))
        button.post_message(Button.Pressed(button))
        await until(pilot, lambda: answers)
        await pilot.pause()
        assert answers == ["yes"] and len(app.screen_stack) == 2
        assert isinstance(app.screen, ChoiceDialog) and app.screen.title_text == "below"


async def test_keys_for_a_screen_that_is_not_mounted_yet_wait_for_it(tmp_path: Path) -> None:
    """Pressed at once after the key that opens it, they find its buttons and its text, in the order pressed."""
    answers: list[str | None] = []
    async with opened(tmp_path) as (app, pilot):
        app.push_screen(ChoiceDialog("Title", "", [Answer("yes", "Yes"), Answer("no", "No")]), answers.append)
        for key in ("pagedown", "right", "enter"):
            event = key_event(key)
            event._set_forwarded()  # as it comes back from what had the focus before
            await app.on_event(event)
        await until(pilot, lambda: answers)
        assert answers == ["no"] and len(app.screen_stack) == 1


class Searching(ModalScreen[None]):
    """Looks, once it may, for a part that it does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.may_look = asyncio.Event()

    def on_mount(self) -> None:
        self.run_worker(self._look)

    async def _look(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await self.may_look.wait()
        self.query_one("#nowhere")


async def test_a_screen_that_is_closed_may_look_in_vain(tmp_path: Path) -> None:
    """As the palette's search does that goes on when it is closed; an open one has a defect, and is told of it."""
    async with opened(tmp_path) as (app, pilot):
        app.push_screen(Searching())
        await pilot.pause()
        app.pop_screen()
        await pilot.pause()
        assert app.is_running and app._exception is None
    with pytest.raises(WorkerFailed):
        async with opened(tmp_path) as (app, pilot):
            screen = Searching()
            app.push_screen(screen)
            await pilot.pause()
            screen.may_look.set()
            await pilot.pause()
