"""One line that says how far each of the four stages is."""

from textual.content import Content
from textual.widget import Widget

from core.config import STAGES
from tui.run_state import state_glyph

_WORDS = {
    "pretrain": ("pretrain", "pre"),
    "finetune": ("finetune", "fine"),
    "baseball-pretrain": ("rules", "rules"),
    "baseball-finetune": ("QA", "QA"),
}


class StageRail(Widget):
    """`pretrain ✓ ─ finetune ● ─ rules ○ ─ QA ○`, shorter where there is less room."""

    def __init__(self, here: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.here = here
        """The stage of the tab that it stands in."""
        self.states: dict[str, str] = {}

    def show(self, states: dict[str, str]) -> None:
        """Show these states, by stage."""
        if states != self.states:
            self.states = dict(states)
            self.refresh()

    def render(self) -> Content:
        for word, joint in ((0, " ─ "), (0, "─"), (1, "─"), (1, " ")):
            parts = [
                f"{_WORDS[stage][word]} {state_glyph(self.states.get(stage, 'none'))}" for stage in STAGES
            ]
            if sum(map(len, parts)) + 3 * len(joint) <= self.size.width:
                break
        styled = [
            Content(part).stylize("bold") if stage == self.here else Content(part)
            for stage, part in zip(STAGES, parts, strict=True)
        ]
        return Content(joint).stylize("dim").join(styled)
