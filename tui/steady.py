"""What Textual's own screens fail on when keys and clicks come faster than they are drawn, kept from failing."""

from textual._context import active_message_pump
from textual.app import App
from textual.await_complete import AwaitComplete
from textual.command import CommandList, CommandPalette
from textual.events import Event, Key
from textual.screen import Screen
from textual.widgets import OptionList


class SteadyApp(App[None]):
    """An app that a hasty key does not end, and with it a training."""

    def __init__(self) -> None:
        super().__init__()
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

    def pop_screen(self) -> AwaitComplete:
        """Take the top screen away, unless one asks for it that is gone: two quick keys dismiss a dialog twice."""
        asking = active_message_pump.get(None)
        if isinstance(asking, Screen) and asking not in self.screen_stack:
            return AwaitComplete.nothing()
        return super().pop_screen()
