"""One line that says how far each of the four stages is."""

from textual.content import Content
from textual.widget import Widget

from core.config import STAGES
from tui.run_state import state_glyph

_WORDS = {
    "pretrain": ("pretrain", "pre", "p"),
    "finetune": ("finetune", "fine", "f"),
    "baseball-pretrain": ("rules", "rules", "r"),
    "baseball-finetune": ("QA", "QA", "Q"),
}


_STOP_JOINTS = {" ─ ": "─┤ ", "─": "┤", " ": "┤"}


class StageRail(Widget):
    """`pretrain ✓ ─ finetune ● ─┤ rules ○ ─ QA ○`, shorter where there is less room; `┤` is where the queue stops."""

    def __init__(self, here: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.here = here
        """The stage of the tab that it stands in."""
        self.states: dict[str, str] = {}
        self.stop_after = ""

    def show(self, states: dict[str, str], stop_after: str = "") -> None:
        """Show these states, by stage, and after which stage the queue stops."""
        if (states, stop_after) != (self.states, self.stop_after):
            self.states, self.stop_after = dict(states), stop_after
            self.refresh()

    def render(self) -> Content:
        for word, joint in ((0, " ─ "), (0, "─"), (1, "─"), (1, " "), (2, " ")):
            parts = [
                f"{_WORDS[stage][word]} {state_glyph(self.states.get(stage, 'none'))}" for stage in STAGES
            ]
            # One column stays free before the buttons.
            if sum(map(len, parts)) + 3 * len(joint) < self.size.width:
                break
        line = Content("")
        for stage, part in zip(STAGES, parts, strict=True):
            line = line.append(Content(part).stylize("bold") if stage == self.here else Content(part))
            if stage == self.stop_after:
                line = line.append(Content(_STOP_JOINTS[joint]).stylize("bold"))
            elif stage != STAGES[-1]:
                line = line.append(Content(joint).stylize("dim"))
        return line
