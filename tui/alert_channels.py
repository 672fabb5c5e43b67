"""How an alert reaches the user of the app: a notice always; the bell, the desktop and a command where wanted."""

from pathlib import Path
from typing import TYPE_CHECKING

from tui.alerts import ENDED, TEST, Alert
from tui.messages import AlertCommandDone, AlertRaised
from tui.on_event import EventCommands
from tui.settings import AlertSettings
from tui.workers.watch import RunWatch

if TYPE_CHECKING:
    from tui.frame import Frame


class AlertChannels:
    """Has the live runs watched, and passes on what they give cause for. To be used in the screen's thread.

    Args:
        root: the folder that holds `checkpoints/`.
    """

    def __init__(self, app: "Frame", root: Path) -> None:
        self.settings = AlertSettings()
        self.watch = RunWatch(root, lambda alert: app.post_message(AlertRaised(alert)))
        self._app = app
        self._commands = EventCommands(
            lambda alert, problem: app.post_message(AlertCommandDone(alert, problem))
        )

    def tell(self, alert: Alert) -> None:
        """Give the alert by every means that is switched on."""
        # How the app's own run ended, the app says itself.
        if not (alert.kind == ENDED and alert.is_own):
            severity = "warning" if alert.is_bad else "information"
            self._app.notify(alert.text, title=alert.title, severity=severity, timeout=10)
        if not self.settings.gives(alert.kind):
            return
        if self.settings.bell:
            self._app.bell()
        if self.settings.desktop:
            self._app.notify_desktop(f"{alert.title}. {alert.text}")
        if not alert.is_told:
            self._commands.run(self.settings.command, alert)

    def try_them(self) -> None:
        """Give a test alert, so that the user hears and sees what comes through."""
        text = "This is how bbtui gives word. Nothing has happened."
        self.tell(Alert(TEST, "", "A test", text, is_bad=False))

    def command_done(self, alert: Alert, problem: str) -> None:
        """Say what became of the user's command where that is of interest."""
        if problem:
            self._app.notify(problem, severity="warning")
        elif alert.kind == TEST:
            self._app.notify("The command ran without a fault.")
