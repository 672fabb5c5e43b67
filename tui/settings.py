"""What the user chose and the app keeps: the theme, the chart's axis. Losing it is never an error."""

import contextlib
import json
from pathlib import Path
from typing import Any

from core.runs import data_folder


class Choices:
    """Small values by name, kept in `app.json` beside the prepared data."""

    def __init__(self, root: Path) -> None:
        self.path = data_folder(root) / "app.json"
        self._values: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError, RecursionError):
            values = json.loads(self.path.read_text(encoding="utf-8"))
            if isinstance(values, dict):
                self._values = values

    def text(self, name: str, default: str = "") -> str:
        """The text kept under a name, or the default where there is none."""
        value = self._values.get(name)
        return value if isinstance(value, str) else default

    def keep(self, name: str, value: str) -> None:
        """Remember a text; where it cannot be written it holds for this session."""
        if self._values.get(name) == value:
            return
        self._values[name] = value
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside = self.path.with_suffix(".tmp")
            beside.write_text(json.dumps(self._values, indent=1), encoding="utf-8")
            beside.replace(self.path)
