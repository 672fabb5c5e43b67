"""What the user chose and the app keeps: the theme, the chart's axis, the alerts. Losing it is never an error."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from tui.alerts import CHECKPOINT
from tui.on_event import ON_EVENT


def user_folder() -> Path:
    """Where this user's settings for every root lie."""
    given = os.environ.get("XDG_CONFIG_HOME", "")
    try:
        return (Path(given) if given.startswith("/") else Path.home() / ".config") / "bbtui"
    except RuntimeError:  # no home
        return Path(os.devnull)


class Choices:
    """Small values by name, kept in a file of JSON."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._values: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError, RecursionError):
            values = json.loads(self.path.read_text(encoding="utf-8"))
            if isinstance(values, dict):
                self._values = values

    def text(self, name: str, default: str = "") -> str:
        """The text kept under a name, or the default where there is none."""
        value = self._values.get(name)
        return value if isinstance(value, str) else default

    def flag(self, name: str, default: bool) -> bool:
        """The yes or no kept under a name, or the default where there is none."""
        value = self._values.get(name)
        return value if isinstance(value, bool) else default

    def keep(self, name: str, value: str | bool) -> None:
        """Remember a value; where it cannot be written it holds for this session."""
        if self._values.get(name) == value:
            return
        self._values[name] = value
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside = self.path.with_suffix(".tmp")
            beside.write_text(json.dumps(self._values, indent=1), encoding="utf-8")
            beside.replace(self.path)


class AlertSettings:
    """Which alerts are given, and how.

    They are the user's, not a root's: a folder that is handed on must not bring a command along.
    """

    def __init__(self) -> None:
        self._choices = Choices(user_folder() / "alerts.json")

    @property
    def bell(self) -> bool:
        return self._choices.flag("bell", True)

    @property
    def desktop(self) -> bool:
        return self._choices.flag("desktop", True)

    @property
    def command(self) -> str:
        """The user's command; empty for none."""
        return self._choices.text("command", os.environ.get(ON_EVENT, ""))

    def gives(self, kind: str) -> bool:
        """Whether alerts of this kind go further than a notice."""
        return self._choices.flag(kind, kind != CHECKPOINT)

    def switch(self, name: str, value: bool) -> None:
        """Turn `bell`, `desktop` or a kind of alert on or off."""
        self._choices.keep(name, value)

    def keep_command(self, command: str) -> None:
        if command != self.command:
            self._choices.keep("command", command)
