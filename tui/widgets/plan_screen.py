"""The plan of a run before it is started: what it will be, how long it will take, and where it shall be trained."""

import textwrap
import time
from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import HorizontalGroup, Vertical, VerticalScroll
from textual.content import Content
from textual.events import DescendantFocus
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from core.plan import Plan
from core.probe import Pace, estimated_s
from tui import plan_words
from tui.clean import clean
from tui.figures import span_text
from tui.workers.planning import PaceKnown, PaceTried, PlanFailed, PlanMade, Planner

START, DETACHED, CANCEL = "start", "detached", "cancel"
_LABELS = {START: "Start", DETACHED: "Start detached", CANCEL: "Cancel"}
_SIGN = "⚠"
_INDENT, _WARNING_INDENT = 12, 2
# As the style sheet has them.
_WIDTH, _SHARE, _SIDES, _BORDERS_AND_BUTTONS = 78, 0.96, 6, 4


class PlanScreen(ModalScreen[str]):
    """Returns `start`, `detached` or `cancel`. It never has to be waited for: Enter starts at once.

    Args:
        title: what would be started.
        planner: makes the thread that works the plan out, of where it shall post.
        answers: the buttons' names in their order; the first has the focus.
        notice: a sentence that stands above the buttons from the beginning.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", tooltip="Start nothing."),
        Binding("left", "app.focus_previous", "Previous", show=False, tooltip="Go to the answer before."),
        Binding("right", "app.focus_next", "Next", show=False, tooltip="Go to the next answer."),
        Binding("up", "scroll(-1)", "Up", show=False, tooltip="Scroll the plan back."),
        Binding("down", "scroll(1)", "Down", show=False, tooltip="Scroll the plan on."),
        Binding("pageup", "scroll(-8)", "Page up", show=False, tooltip="Scroll the plan a page back."),
        Binding("pagedown", "scroll(8)", "Page down", show=False, tooltip="Scroll the plan a page on."),
        Binding("y", "copy", "Copy", show=False, tooltip="Copy the plan."),
    ]

    def __init__(
        self,
        title: str,
        planner: Callable[[Callable[[Message], object]], Planner],
        answers: tuple[str, ...] = (START, DETACHED, CANCEL),
        notice: str = "",
    ) -> None:
        super().__init__()
        self.title_text = clean(title)
        self.answers = answers
        self.notice = notice
        self.plan: Plan | None = None
        self.pace: Pace | None = None
        self._make_planner = planner
        self._planner: Planner | None = None
        self._problem = ""
        self._tried_step_s = 0.0
        self._measuring_since_s: float | None = None
        self._is_known = False
        self._memory_bytes = 0
        self._has_moved = False
        self._text = ""

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Content(self.title_text)
            box.border_subtitle = "↑↓ scroll   y copy   esc close"
            with VerticalScroll(id="plan-text", can_focus=False):
                yield Static("Working it out…", id="plan-lines", markup=False)
            yield Static(id="plan-notice", markup=False)
            with HorizontalGroup(classes="dialog-answers", id="plan-answers"):
                for name in self.answers:
                    label = "Close" if name == self.answers[0] == CANCEL else _LABELS[name]
                    yield Button(label, name=name, compact=True, id=f"plan-{name}")

    def on_mount(self) -> None:
        self._choose_first(self.answers[0])
        self._say("")
        self._planner = self._make_planner(self.post_message).start()
        self.set_interval(1.0, self._show)

    def on_unmount(self) -> None:
        if self._planner:
            self._planner.leave()

    # ------------------------------------------------------------ what the planner tells

    @on(PlanMade)
    def _plan_made(self, message: PlanMade) -> None:
        self.plan = message.plan
        self._show()

    @on(PlanFailed)
    def _plan_failed(self, message: PlanFailed) -> None:
        self._problem = clean(f"✗ {message.what}\n{message.fix}".strip())
        self._is_known = True
        self._show()

    @on(PaceTried)
    def _pace_tried(self, message: PaceTried) -> None:
        if self._measuring_since_s is None:
            self._measuring_since_s = time.monotonic()
        self._tried_step_s = message.step_s
        self._show()

    @on(PaceKnown)
    def _pace_known(self, message: PaceKnown) -> None:
        self.pace, self._memory_bytes, self._is_known = message.pace, message.memory_bytes, True
        self._say(message.notice)
        total_s = estimated_s(self.plan, self.pace) if self.plan and self.pace else None
        why = plan_words.detach_words(total_s or 0.0)
        # Someone who has moved the focus has begun to choose; no button may slip under the hand.
        if why and self.answers[:2] == (START, DETACHED) and not self._has_moved:
            start, detached = self.query_one("#plan-start"), self.query_one("#plan-detached")
            self.query_one("#plan-answers").move_child(detached, before=start)
            self._choose_first(DETACHED)
        if DETACHED in self.answers:
            self._say(why)
        self._show()

    # ------------------------------------------------------------ showing

    def _say(self, sentence: str) -> None:
        self.notice = clean(f"{self.notice}\n{sentence}".strip())
        line = self.query_one("#plan-notice", Static)
        line.update(Content(self.notice))
        line.display = bool(self.notice)
        self._fit()

    def on_resize(self) -> None:
        self._fit()
        self.call_after_refresh(self._show)

    def _fit(self) -> None:
        """Leave room for sentence and buttons, whatever the plan's length."""
        width = min(_WIDTH, int(self.size.width * _SHARE)) - _SIDES
        sentence = [part for line in self.notice.splitlines() for part in textwrap.wrap(line, max(1, width))]
        room = int(self.size.height * _SHARE) - _BORDERS_AND_BUTTONS - (len(sentence) + 1 if sentence else 0)
        self.query_one("#plan-text").styles.max_height = max(2, room)

    def _show(self) -> None:
        if not self.is_attached:
            return
        lines = self._lines()
        self._text = "\n".join(line.plain for line in lines)
        self.query_one("#plan-lines", Static).update(Content("\n").join(lines))

    def _lines(self) -> list[Content]:
        if self.plan is None:
            return [Content(self._problem or "Working it out…")]
        width = max(20, self.query_one("#plan-text").size.width - 1)
        entries = plan_words.plan_lines(self.plan, self._memory_bytes)
        # The time first, then what to think of: a small screen shows the first lines.
        entries.insert(0, (plan_words.TIME, self._time_words()))
        for text in reversed(plan_words.warning_words(self.plan)):
            entries.insert(1, (_SIGN, text))
        lines = [line for label, text in entries for line in _entry(label, text, width)]
        if self._problem:
            lines.append(Content(self._problem))
        return lines

    def _time_words(self) -> str:
        assert self.plan
        if self._is_known:
            return plan_words.time_words(self.plan, self.pace)
        if self._measuring_since_s is None:
            return "measuring this machine…"
        elapsed_s = time.monotonic() - self._measuring_since_s
        tried = f" ({self._tried_step_s:.2g} s a step)" if self._tried_step_s else ""
        return f"measuring this machine: {span_text(elapsed_s)}…{tried}"

    # ------------------------------------------------------------ answering

    def _choose_first(self, name: str) -> None:
        for button in self.query(Button):
            button.variant = "primary" if button.name == name else "default"
        self.query_one(f"#plan-{name}", Button).focus()
        self._focus_given = name

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        if event.widget.name != self._focus_given:
            self._has_moved = True

    @on(Button.Pressed)
    def _answered(self, event: Button.Pressed) -> None:
        event.stop()
        self.dismiss(event.button.name or CANCEL)

    def action_cancel(self) -> None:
        self.dismiss(CANCEL)

    def action_scroll(self, lines: int) -> None:
        self.query_one("#plan-text").scroll_relative(y=lines, animate=False)

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(f"{self.title_text}\n{self._text}\n{self.notice}".strip())
        self.app.notify("The plan is copied.")


def _entry(label: str, text: str, width: int) -> list[Content]:
    """A label, and the text beside it in as many lines as it takes."""
    indent = _WARNING_INDENT if label == _SIGN else _INDENT
    wrapped = textwrap.wrap(text, max(8, width - indent), break_on_hyphens=False) or [""]
    first = Content.assemble((f"{label:<{indent}}", "bold"), wrapped[0])
    lines = [first, *(Content(" " * indent + line) for line in wrapped[1:])]
    return [line.stylize("$text-warning") for line in lines] if label == _SIGN else lines
