"""The form of a stage's settings: what a new run would be, editable, checked as it is typed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import HorizontalGroup, Vertical, VerticalScroll
from textual.content import Content
from textual.events import DescendantFocus
from textual.message import Message
from textual.widgets import Input, Label, Select, Static

from core.config import Setting, StageConfig, load_stage, settings_of
from core.errors import BbtuiError, ConfigError
from tui.clean import clean, clean_line

NEWEST = ""
"""The parent that stands for the newest finished run of the stage before."""

_NOT_HERE = ("preset", "stage", "parent")
_FIRST = (
    "steps",
    "epochs",
    "optim.learning_rate",
    "batch.tokens",
    "batch.examples",
    "batch.micro_batch",
    "seed",
)


class SettingsForm(Vertical):
    """Preset and parent to choose, and an entry for every setting; `overrides` is what was changed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "app.focus_previous", "Previous", show=False, tooltip="Go to the setting above."),
        Binding("down", "app.focus_next", "Next", show=False, tooltip="Go to the setting below."),
    ]

    class PresetChosen(Message):
        """Another preset was chosen."""

        def __init__(self, preset: str) -> None:
            super().__init__()
            self.preset = preset

    class Checked(Message):
        """The settings were looked at again; `config` is None where something is wrong with them."""

        def __init__(self, config: StageConfig | None) -> None:
            super().__init__()
            self.config = config

    def __init__(self, stage: str, root: Path, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.stage = stage
        self.root = root
        self.preset = ""
        self.parent_name = NEWEST
        self.problems: list[str] = []
        self._settings: dict[str, Setting] = {}
        self._entries: dict[str, Input] = {}

    def compose(self) -> ComposeResult:
        with HorizontalGroup(classes="form-choices"):
            yield Label("preset ")
            yield Select[str]([], compact=True, allow_blank=True, id="form-preset")
            yield Label(" from ", id="form-parent-label")
            yield Select[str]([], compact=True, allow_blank=True, id="form-parent")
        yield VerticalScroll(can_focus=False, id="form-rows")
        yield Static(id="form-why", markup=False)

    @property
    def is_filled(self) -> bool:
        return bool(self._settings)

    async def fill(self, preset: str, presets: Sequence[str], parents: Sequence[str] | None) -> None:
        """Show the settings of a preset; what was typed before is dropped.

        Args:
            parents: names of runs that the stage could start from, newest first; None for the first stage.
        """
        self.preset, self.parent_name = preset, NEWEST
        with self.prevent(Select.Changed):
            chooser = self.query_one("#form-preset", Select)
            chooser.set_options((Content(clean_line(name, 40)), name) for name in presets)
            if preset in presets:
                chooser.value = preset
            parent = self.query_one("#form-parent", Select)
            parent.display = self.query_one("#form-parent-label").display = parents is not None
            parent.set_options(
                [
                    ("newest finished", NEWEST),
                    *((Content(clean_line(name, 60)), name) for name in parents or []),
                ]
            )
            parent.value = NEWEST
        rows = self.query_one("#form-rows", VerticalScroll)
        await rows.remove_children()
        self._settings, self._entries = {}, {}
        try:
            config = load_stage(preset, self.stage, self.root)
        except BbtuiError as error:
            self._show(None, str(error).splitlines())
            return
        self._settings = {s.key: s for s in _in_order(settings_of(config)) if s.key not in _NOT_HERE}
        self._entries = {
            key: Input(setting_text(setting.value), name=key, compact=True, select_on_focus=False)
            for key, setting in self._settings.items()
        }
        with self.prevent(Input.Changed):
            await rows.mount_all(
                HorizontalGroup(Label(Content(key), classes="form-key"), entry, classes="form-row")
                for key, entry in self._entries.items()
            )
        self._show(config, [])

    def focus_first(self) -> None:
        """Put the focus on the first setting."""
        first = next(iter(self._entries.values()), None)
        (first or self.query_one("#form-preset", Select)).focus()

    @property
    def overrides(self) -> list[str]:
        """What was changed, as `key=value`."""
        return [
            override_text(setting, entry.value)
            for key, entry in self._entries.items()
            if entry.value.strip() != setting_text((setting := self._settings[key]).value)
        ]

    def check(self) -> None:
        """Look at the settings as they stand, and say what is wrong with them."""
        try:
            self._show(load_stage(self.preset, self.stage, self.root, self.overrides), [])
        except ConfigError as error:
            self._show(None, error.problems)
        except BbtuiError as error:
            self._show(None, [error.what])

    def _show(self, config: StageConfig | None, problems: list[str]) -> None:
        self.problems = [clean_line(problem.removeprefix("--set: "), 300) for problem in problems]
        for key, entry in self._entries.items():
            entry.set_class(any(f" {key}:" in f" {problem}" for problem in self.problems), "-wrong")
        self._say_why()
        self.post_message(self.Checked(config))

    def _say_why(self) -> None:
        focused = self.screen.focused if self.is_attached else None
        key = focused.name if isinstance(focused, Input) else None
        why = self._settings[key].why if key in self._settings else "Tab or ↓ goes on, Esc back to the chart."
        lines = [Content(f"✗ {problem}").stylize("$text-error") for problem in self.problems[:2]]
        if len(self.problems) > 2:
            lines.append(Content(f"✗ and {len(self.problems) - 2} more"))
        name = f"{key}: " if key else ""
        self.query_one("#form-why", Static).update(
            Content("\n").join([Content(clean(f"{name}{why}")), *lines])
        )

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self.check()

    @on(Input.Submitted)
    def _entered(self, event: Input.Submitted) -> None:
        event.stop()
        self.app.action_focus_next()

    def on_descendant_focus(self, _event: DescendantFocus) -> None:
        self._say_why()

    @on(Select.Changed, "#form-preset")
    def _preset_changed(self, event: Select.Changed) -> None:
        event.stop()
        if isinstance(event.value, str) and event.value != self.preset:
            self.post_message(self.PresetChosen(event.value))

    @on(Select.Changed, "#form-parent")
    def _parent_changed(self, event: Select.Changed) -> None:
        event.stop()
        self.parent_name = event.value if isinstance(event.value, str) else NEWEST


def setting_text(value: Any) -> str:
    """A setting's value as it is typed: numbers short, lists as TOML writes them, strings without quotes."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, float):
        return f"{value:.10g}"
    return str(value)


def override_text(setting: Setting, text: str) -> str:
    """`key=value` for what was typed; a string is quoted so that `7` stays one."""
    text = text.strip()
    value = json.dumps(text, ensure_ascii=False) if isinstance(setting.value, str) else text
    return f"{setting.key}={value}"


def _in_order(settings: Any) -> list[Setting]:
    """The settings that people change most first, the others as they stand."""
    return sorted(settings, key=lambda s: _FIRST.index(s.key) if s.key in _FIRST else len(_FIRST))
