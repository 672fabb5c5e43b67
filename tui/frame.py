"""The app's frame: header with tabs, footer, help, palette, notices. It does not know what the tabs do."""

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.events import Resize
from textual.geometry import Size
from textual.notifications import SeverityLevel
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import ContentSwitcher, Input, Static

from core.config import STAGES, stage_title
from core.runs import data_folder
from tui.alert_channels import AlertChannels
from tui.clean import clean, clean_line
from tui.figures import duration_text
from tui.messages import AlertCommandDone, AlertRaised, StageChanged
from tui.palette import Action, actions_of, help_page
from tui.panes.stage import StagePane
from tui.run_state import state_glyph
from tui.settings import Choices
from tui.steady import SteadyApp
from tui.terminal import desktop_notification
from tui.widgets.alerts_panel import AlertsPanel
from tui.widgets.dialogs import TextScreen
from tui.widgets.header_bar import HeaderBar, Tab
from tui.widgets.hint_bar import Hint, HintBar
from tui.widgets.system_panel import ShownRun, SystemPanel
from tui.workers.meters import Meters

_SMALLEST = (40, 12)
_NOTICE_CHARACTERS = 100
OTHER_TABS = ("chat", "eval", "runs")


class Frame(SteadyApp):
    """Seven tabs between a header and a footer.

    Args:
        root: the folder that holds `checkpoints/`; the user's choices are kept under it.
        domain: what the last two stages gear the model to.
    """

    TITLE = "bbtui"
    CSS_PATH = sorted((Path(__file__).parent / "styles").glob("*.tcss"))
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(str(number), f"tab('{name}')", f"Go to {name}", show=False)
            for number, name in enumerate((*STAGES, *OTHER_TABS), 1)
        ),
        Binding("question_mark,f1", "help", "Help", show=False, tooltip="Show what every key does."),
        Binding("f2", "change_theme", "Theme", show=False, tooltip="Choose the colours; the choice is kept."),
        Binding("f3", "notices", "Notices", show=False, tooltip="Show this session's notices again."),
        Binding("f4", "picture", "Screenshot", show=False, tooltip="Save the screen as an SVG picture."),
        Binding(
            "f5",
            "system",
            "System",
            show=False,
            tooltip="Show what the machine does: processor, memory, GPU, disk, processes.",
        ),
        Binding(
            "f6", "alerts", "Alerts", show=False, tooltip="Choose when and how you get word of your runs."
        ),
    ]

    def __init__(self, root: Path, domain: str) -> None:
        super().__init__()
        self.domain = domain
        self.choices = Choices(data_folder(root) / "app.json")
        self.alerts = AlertChannels(self, root)
        self.notices: deque[str] = deque(maxlen=200)
        self.stage_states: dict[str, str] = {}
        """Each stage's state as its newest run has it; the tabs know better about live ones."""
        self._meters = Meters(root)
        self.stop_after = ""
        """The stage after which the queue stops, if any."""
        self._pictures_folder = data_folder(root)
        # Held here, since messages still arrive while the app takes its widgets down.
        self.header = HeaderBar(self.tabs(), id="header")
        self.hint_bar = HintBar(id="hints")
        self._switcher = ContentSwitcher(initial=STAGES[0], id="panes")
        self._too_small = Container(
            Static(Content("Make me bigger, please:\n40 columns and 12 rows.")), id="too-small"
        )
        self._is_composed = False
        self._tab_to_show = ""
        """A tab asked for before it was mounted."""

    # ------------------------------------------------------------ layout

    def compose(self) -> ComposeResult:
        yield self.header
        with self._switcher:
            yield StagePane(STAGES[0], id=STAGES[0])
        yield self.hint_bar
        yield self._too_small

    def tabs(self) -> list[Tab]:
        """The tabs in their order, the domain's by its name."""
        titles = [stage_title(stage, self.domain) for stage in STAGES]
        short = [("Pretrain", "Pre"), ("Finetune", "Fine"), ("Rules", "Rules"), ("QA", "QA")]
        tabs = [
            Tab(name, str(number), (title, *words))
            for number, (name, title, words) in enumerate(zip(STAGES, titles, short, strict=True), 1)
        ]
        for number, name in enumerate(OTHER_TABS, len(STAGES) + 1):
            word = name.capitalize()
            tabs.append(Tab(name, str(number), (word, word, word), starts_group=name == OTHER_TABS[0]))
        return tabs

    def on_mount(self) -> None:
        if (theme := self.choices.text("theme")) in self.available_themes:
            self.theme = theme
        self.theme_changed_signal.subscribe(self, lambda theme: self.choices.keep("theme", theme.name))
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self._show_hints())
        self._is_composed = True
        self._fit(self.size)
        self.stage_pane(STAGES[0]).focus_default()
        # The first picture stands before the other tabs are built.
        self.call_after_refresh(self._mount_other_panes)

    async def _mount_other_panes(self) -> None:
        from tui.panes.chat import ChatPane
        from tui.panes.evals import EvalPane
        from tui.panes.runs import RunsPane

        panes: list[Widget] = [StagePane(stage, id=stage) for stage in STAGES[1:]]
        panes += [ChatPane(id="chat"), EvalPane(id="eval"), RunsPane(id="runs")]
        for pane in panes:
            if self.return_code is not None:
                return  # it was left meanwhile: there is nothing to mount them in
            await self._switcher.add_content(pane)
        if self._tab_to_show:
            self.action_tab(self._tab_to_show)
        self.set_interval(1.0, self._tick)
        self.watch(self.screen_stack[0], "focused", self._keep_focus, init=False)
        self.all_mounted()

    def all_mounted(self) -> None:
        """Called once, when every tab is there."""

    @property
    def stands(self) -> bool:
        """Whether the frame is on the screen: messages still arrive while the app closes."""
        return self._is_composed and bool(self.screen_stack)

    @property
    def pane(self) -> Widget | None:
        """The visible tab's pane."""
        return next((pane for pane in self._switcher.children if pane.id == self._switcher.current), None)

    @property
    def stage_panes(self) -> list[StagePane]:
        """The training tabs that are mounted. Found without a walk through all widgets: it is asked often."""
        return [pane for pane in self._switcher.children if isinstance(pane, StagePane) and pane.is_mounted]

    def stage_pane(self, stage: str) -> StagePane:
        return next(pane for pane in self.stage_panes if pane.stage == stage)

    def on_resize(self, event: Resize) -> None:
        if self.stands:
            self._fit(event.size)

    def _fit(self, size: Size) -> None:
        is_small = size.width < _SMALLEST[0] or size.height < _SMALLEST[1]
        # Not by a class of the screen: that would have every widget of every tab styled anew.
        self._too_small.display = is_small
        self._show_hints()

    # ------------------------------------------------------------ tabs, header, footer

    def action_tab(self, name: str) -> None:
        """Show a tab and put the focus into it."""
        if all(pane.id != name for pane in self._switcher.children):
            self._tab_to_show = name
            return
        self._switcher.current = name
        self.header.show(active=name)
        self.call_after_refresh(self._focus_pane)

    def _focus_pane(self) -> None:
        pane = self.pane if self.stands else None
        if pane is None or len(self.screen_stack) > 1:
            return
        if self.focused is not None and pane in self.focused.ancestors_with_self:
            return
        if isinstance(pane, StagePane):
            pane.focus_default()
        else:
            # Where there is nothing to focus, the keys must not go on to the tab that was left.
            self.screen.set_focus(next((w for w in self.screen.focus_chain if pane in w.ancestors), None))
        self._show_hints()

    def _keep_focus(self, focused: Widget | None) -> None:
        # Without a focus no key of the visible tab would be heard.
        if focused is None:
            self.call_after_refresh(self._focus_pane)

    @on(HeaderBar.Chosen)
    def _tab_clicked(self, event: HeaderBar.Chosen) -> None:
        self.action_tab(event.name)

    @on(HintBar.Chosen)
    def _hint_clicked(self, event: HintBar.Chosen) -> None:
        self.simulate_key(event.key)

    def _show_hints(self) -> None:
        if not self.stands:
            return
        pane = self.pane
        hints = pane.hints() if isinstance(pane, StagePane) else list(self._hints_of_bindings())
        self.hint_bar.show(hints)

    def _hints_of_bindings(self) -> Iterator[Hint]:
        """What the footer of any other tab shows: its own bindings that can be used now."""
        seen: set[str] = set()
        for node, binding, enabled, _ in list(self.screen_stack[0].active_bindings.values()):
            is_letter = len(binding.key) == 1 or binding.key == "space"
            is_typed = is_letter and isinstance(self.focused, Input)
            if not binding.show or not enabled or node is self or is_typed or binding.action in seen:
                continue
            seen.add(binding.action)
            yield binding.key, binding.description.lower()

    def _tick(self) -> None:
        """Once a second: clocks that run go on. Hardly anything happens while nothing is training."""
        if not self.stands:
            return
        self._keep_focus(self.screen_stack[0].focused)
        if any(pane.is_live for pane in self.stage_panes):
            self._show_status()
            if isinstance(self.pane, StagePane) and self.pane.is_live:
                self.pane.show_all()

    @on(StageChanged)
    def _show_status(self) -> None:
        if not self.stands:
            return
        panes = self.stage_panes
        states = dict(self.stage_states)
        live = None
        for pane in panes:
            if pane.is_live:
                states[pane.stage] = pane.word
                live = live or pane
        for pane in panes:
            pane.controls.rail.show(states, self.stop_after)
        if live is None:
            status = "○ idle"
        else:
            elapsed_s = live.state.elapsed_s(time.time()) if live.state and not live.starting else None
            clock = f" {duration_text(elapsed_s)}" if elapsed_s is not None else " …"
            status = f"{state_glyph(live.word)}{clock}"
        self.header.show(status=status)
        self._show_hints()

    # ------------------------------------------------------------ notices, help, palette

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = False,
    ) -> None:
        """Show a notice of two lines at most, and keep it for the page of notices. Markup is never obeyed."""
        del markup
        sign = {"warning": "⚠ ", "error": "✗ "}.get(severity, "")
        text = clean_line(f"{sign}{title}{': ' if title else ''}{message}", _NOTICE_CHARACTERS)
        self.notices.append(f"{time.strftime('%H:%M:%S')}  {text}")
        super().notify(text, severity=severity, timeout=timeout, markup=False)

    def copy_to_clipboard(self, text: str) -> None:
        """Copy by the terminal's own means (OSC 52), without what a terminal would obey."""
        super().copy_to_clipboard(clean(text))

    def notify_desktop(self, text: str) -> None:
        """Have the terminal show a notification on the desktop, where it can."""
        if self._driver is not None and not self.is_headless:
            self._driver.write(desktop_notification(text, os.environ))

    @on(AlertRaised)
    def _alert_raised(self, message: AlertRaised) -> None:
        if self.stands:
            self.alerts.tell(message.alert)

    @on(AlertCommandDone)
    def _alert_command_done(self, message: AlertCommandDone) -> None:
        if self.stands:
            self.alerts.command_done(message.alert, message.problem)

    def action_system(self) -> None:
        self.push_screen(SystemPanel(self._meters, self._shown_run))

    def _shown_run(self) -> ShownRun | None:
        """The live run of the visible tab, or the first one that lives."""
        panes = [*([self.pane] if isinstance(self.pane, StagePane) else []), *self.stage_panes]
        state = next((pane.state for pane in panes if pane.state and pane.state.is_live), None)
        if state is None or state.started is None:
            return None
        pace = state.train.tokens_per_s if state.train and not state.is_paused else None
        return ShownRun(state.run.short_name, state.started.process_id, pace)

    def action_alerts(self) -> None:
        self.push_screen(AlertsPanel(self.alerts))

    def action_notices(self) -> None:
        lines = "\n".join(reversed(self.notices)) or "There were no notices in this session."
        self.push_screen(TextScreen("Notices, the newest first", Content(lines)))

    def action_picture(self) -> None:
        self.set_timer(0.1, lambda: self.deliver_screenshot(path=str(self._pictures_folder)))

    def action_help(self) -> None:
        sections = [("Anywhere", self._actions_anywhere())]
        panes = {pane.id: pane for pane in self._switcher.children}
        sections.append(("Training tabs", list(actions_of("", StagePane.BINDINGS))))
        for name in OTHER_TABS:
            if pane := panes.get(name):
                sections.append((name.capitalize(), list(actions_of("", type(pane).BINDINGS))))
        self.push_screen(TextScreen("Keys", help_page(sections)))

    def _actions_anywhere(self) -> list[Action]:
        tabs = [
            Action(
                "",
                f"tab('{tab.name}')",
                f"Go to {tab.labels[0]}",
                (tab.key,),
                f"Show the tab {tab.labels[0]}.",
            )
            for tab in self.tabs()
        ]
        kinds = [kind for kind in reversed(type(self).__mro__) if issubclass(kind, Frame)]
        bindings = [binding for kind in kinds for binding in kind.__dict__.get("BINDINGS", ())]
        own = [action for action in actions_of("", bindings) if not action.action.startswith("tab(")]
        palette = Action("", "command_palette", "Palette", ("ctrl+p",), "Find any action by its name.")
        return [*tabs, *own, palette]

    def get_system_commands(self, screen: Screen) -> Iterable[SystemCommand]:
        """Every action of the app and of its tabs; those of a training tab go to the visible one, or the first."""
        del screen
        for action in self._actions_anywhere():
            if action.action != "command_palette":
                yield SystemCommand(action.title, action.help, partial(self.run_action, action.action))
        here = self._switcher.current if self._switcher.current in STAGES else STAGES[0]
        for pane in self._switcher.children:
            if isinstance(pane, StagePane) and pane.id != here:
                continue
            place = (
                stage_title(here, self.domain) if isinstance(pane, StagePane) else str(pane.id).capitalize()
            )
            for action in actions_of(place, type(pane).BINDINGS):
                run = partial(self._run_in_pane, str(pane.id), action.action)
                yield SystemCommand(f"{place}: {action.title}", action.help, run)

    async def _run_in_pane(self, name: str, action: str) -> None:
        if self._switcher.current != name:
            self.action_tab(name)
        await self.run_action(action, self._switcher.query_one(f"#{name}"))
