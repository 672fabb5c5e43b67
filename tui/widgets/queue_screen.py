"""The queue as a page: its stages in order, how far each is, and what can be done with it."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import HorizontalGroup, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from core.config import stage_title
from core.errors import BbtuiError
from core.runs import Summary
from core.stage_queue import Standing
from tui.clean import clean, clean_line
from tui.figures import local_time_text, loss_text
from tui.queue_words import halt_words
from tui.run_state import state_glyph
from tui.widgets.dialogs import stack_answers

_HEADING = ("", "stage", "state", "step", "val", "last active")


class QueueScreen(ModalScreen[str]):
    """Ends with what shall be done: `go on`, `anew`, `clear` or `cancel`.

    Args:
        domain: what the last two stages are named by.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,U", "leave", "Close", tooltip="Close the queue and change nothing."),
        Binding(
            "A", "stop_after", "Stop after this stage", tooltip="Stop the queue after its present stage."
        ),
        Binding("left,up", "app.focus_previous", "Previous", show=False, tooltip="Go to the control before."),
        Binding("right,down", "app.focus_next", "Next", show=False, tooltip="Go to the next control."),
    ]

    def __init__(self, domain: str) -> None:
        super().__init__()
        self._domain = domain
        self._text = Static(id="queue-text", markup=False)
        self._buttons = {
            name: Button(label, name=name, compact=True)
            for name, label in (
                ("go on", "Go on"),
                ("anew", "Start anew"),
                ("stop after", "Stop after this"),
                ("clear", "Clear"),
                ("cancel", "Close"),
            )
        }
        self._shown: tuple[Standing | None, BbtuiError | None, bool] = (None, None, False)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = "Queue"
            yield self._text
            with HorizontalGroup(classes="dialog-answers"):
                yield from self._buttons.values()

    def show(self, standing: Standing | None, problem: BbtuiError | None, is_worked: bool) -> None:
        """Show the queue as it stands now."""
        self._shown = (standing, problem, is_worked)
        if self.is_mounted:
            self._draw()

    def on_mount(self) -> None:
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        standing, problem, is_worked = self._shown
        self._text.update(Content("\n".join(self._lines(standing, problem, is_worked))))
        ahead = standing.stages_ahead if standing else []
        visible = {"cancel"}
        if len(ahead) > 1:
            visible.add("stop after")
        if not is_worked:
            visible.add("go on" if ahead else "anew")
            visible |= {"clear"} if standing or problem else set()
        label = "Do not stop" if standing and standing.stop_after else "Stop after this"
        self._buttons["stop after"].label = label
        self._buttons["stop after"].styles.width = len(label) + 2
        for name, button in self._buttons.items():
            button.display = name in visible
        stack_answers(self, [str(self._buttons[name].label) for name in visible])
        if self.focused is None or not self.focused.display:
            next(button for button in self._buttons.values() if button.display).focus()

    def _lines(self, standing: Standing | None, problem: BbtuiError | None, is_worked: bool) -> list[str]:
        if problem:
            return [clean(str(problem)), ""]
        if standing is None:
            return ["There is no queue.", "A new one trains the four stages, one after the other.", ""]
        lines = [f"Preset {clean_line(standing.queue.preset, 40)}", ""]
        for stage, row in zip(["", *standing.stages], self._rows(standing), strict=True):
            lines.append(row)
            if stage and stage == standing.stop_after:
                lines.append("  ┤ stops here until someone goes on")
        task = standing.next
        halt = halt_words(standing, stage_title(task.stage, self._domain) if task else "")
        return [*lines, "", "It is being worked off." if is_worked else f"The queue {halt}.", ""]

    def _rows(self, standing: Standing) -> list[str]:
        """A heading and a line a stage, with as many columns as there is room for."""
        titles = [stage_title(stage, self._domain) for stage in standing.stages]
        cells = [_HEADING, *(_cells(*entry) for entry in zip(titles, standing.summaries, strict=True))]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        shown = len(widths)
        while sum(widths[:shown]) + 2 * shown > self.query_one(".dialog").content_size.width:
            shown -= 1
        return [
            "  ".join(
                cell.ljust(width) for cell, width in list(zip(row, widths, strict=True))[:shown]
            ).rstrip()
            for row in cells
        ]

    @on(Button.Pressed)
    async def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        if event.button.name == "stop after":
            await self.action_stop_after()
        else:
            self.dismiss(event.button.name or "cancel")

    def action_leave(self) -> None:
        self.dismiss("cancel")

    async def action_stop_after(self) -> None:
        await self.app.run_action("app.stop_after")


def _cells(title: str, summary: Summary | None) -> tuple[str, ...]:
    if summary is None:
        return (state_glyph("none"), title, "to come", "", "", "")
    loss = "" if summary.validation_loss is None else loss_text(summary.validation_loss)
    step = f"{summary.step}/{summary.steps}" if summary.steps else ""
    last = local_time_text(summary.last_at)
    return (state_glyph(summary.state), title, clean_line(summary.state, 12), step, loss, last)
