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

    async def on_event(self, event: Event) -> None:
        """Pass events on, but for a page key that comes before a list is laid out: it would be a KeyError."""
        if isinstance(event, Key) and event.key in ("pageup", "pagedown"):
            is_palette = isinstance(self.screen, CommandPalette)
            lists = self.screen.query(CommandList) if is_palette else [self.focused]
            if any(isinstance(it, OptionList) and not it.scrollable_content_region for it in lists):
                return
        await super().on_event(event)

    def pop_screen(self) -> AwaitComplete:
        """Take the top screen away, unless one asks for it that is gone: two quick keys dismiss a dialog twice."""
        asking = active_message_pump.get(None)
        if isinstance(asking, Screen) and asking not in self.screen_stack:
            return AwaitComplete.nothing()
        return super().pop_screen()
