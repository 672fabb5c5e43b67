"""What Textual's own screens fail on when keys and clicks come faster than they are drawn, kept from failing."""

import traceback
from collections.abc import Sequence
from typing import Any

from textual._context import active_message_pump
from textual.app import App
from textual.await_complete import AwaitComplete
from textual.command import CommandList, CommandPalette
from textual.css.query import NoMatches
from textual.events import Event, Key
from textual.filter import Monochrome, NoColor
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import OptionList
from textual.worker import WorkerFailed


class SteadyApp(App[None]):
    """An app that a hasty key does not end, and with it a training."""

    def __init__(self) -> None:
        super().__init__()
        if self.no_color:
            # Textual's own choice are greys, which are colours all the same.
            self._filters = [NoColor() if isinstance(it, Monochrome) else it for it in self._filters]
        self._held_keys: list[Key] = []
        """Pressed before the screen that they are meant for was mounted."""

    async def on_event(self, event: Event) -> None:
        """Pass events on; a key for a screen that is not mounted yet waits for it."""
        if not isinstance(event, Key) or not self.screen_stack:
            await super().on_event(event)
        elif self._held_keys or not self.screen.is_mounted:
            self._held_keys.append(event)
            if len(self._held_keys) == 1:
                self.call_later(self._release_keys)
        elif not (event.key in ("pageup", "pagedown") and self._lists_without_room()):
            await super().on_event(event)

    async def _release_keys(self) -> None:
        if self.screen_stack and not self.screen.is_mounted:
            self.call_later(self._release_keys)
            return
        held, self._held_keys = self._held_keys, []
        for event in held:
            await self.on_event(event)

    def _lists_without_room(self) -> bool:
        """Whether a list would count pages from lines that it does not have yet: that is a KeyError."""
        is_palette = isinstance(self.screen, CommandPalette)
        lists = self.screen.query(CommandList) if is_palette else [self.focused]
        return any(isinstance(it, OptionList) and not it.scrollable_content_region for it in lists)

    def _handle_exception(self, error: Exception) -> None:
        if not (isinstance(error, WorkerFailed) and _is_of_a_closed_screen(error.error, self.screen_stack)):
            super()._handle_exception(error)

    def pop_screen(self) -> AwaitComplete:
        """Take the top screen away, unless one asks for it that is gone: two quick keys dismiss a dialog twice."""
        asking = active_message_pump.get(None)
        if isinstance(asking, Screen) and asking not in self.screen_stack:
            return AwaitComplete.nothing()
        return super().pop_screen()


def _is_of_a_closed_screen(error: BaseException, stack: Sequence[Screen[Any]]) -> bool:
    """Whether a screen that is gone looked for a part of its own, gone before it: the palette's search does."""
    if not isinstance(error, NoMatches):
        return False
    looking = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    widget = next((it for it in reversed(looking) if isinstance(it, Widget)), None)
    if widget is None:
        return False
    screen = next((it for it in widget.ancestors_with_self if isinstance(it, Screen)), None)
    return screen not in stack
