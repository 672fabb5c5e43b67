"""The answers to the fixed prompts, validation by validation, to be stepped through like a film."""

from bisect import bisect_right
from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from tui.clean import clean, clean_line
from tui.figures import loss_text
from tui.run_state import RunState
from tui.widgets.progress_strip import bar

_LOOKS_PER_S = 2


class FilmScreen(ModalScreen[None]):
    """One answer at a time: left and right through the run, up and down through the prompts.

    Args:
        state: gives the run as it is now; a run that goes on adds frames at the end.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,f", "leave", "Close", tooltip="Close the film."),
        Binding("left", "frame(-1)", "Earlier", priority=True, tooltip="Show the answer before."),
        Binding("right", "frame(1)", "Later", priority=True, tooltip="Show the answer after."),
        Binding("home", "frame(-100000)", "First", priority=True, tooltip="Show the first answer."),
        Binding("end", "frame(100000)", "Last", priority=True, tooltip="Show the newest answer."),
        Binding("up", "prompt(-1)", "Prompt before", priority=True, tooltip="Go to the prompt before."),
        Binding("down", "prompt(1)", "Next prompt", priority=True, tooltip="Go to the next prompt."),
        Binding("y", "copy", "Copy", tooltip="Copy prompt and answer."),
    ]

    def __init__(self, state: Callable[[], RunState | None]) -> None:
        super().__init__()
        self._state = state
        self.prompt = 0
        self.frame = -1
        """Which of the prompt's answers; -1 stays with the newest."""

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="page", id="film") as box:
            box.border_title = "Answers as the run went"
            box.border_subtitle = "← → in time   ↑ ↓ prompts   y copy   esc close"
            yield Static(id="film-frame", markup=False)

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()
        self.set_interval(1 / _LOOKS_PER_S, self.show_frame)
        self.show_frame()

    @property
    def prompts(self) -> list[str]:
        """The prompts in the order in which they came."""
        state = self._state()
        return list(dict.fromkeys(sample.prompt for sample in state.samples)) if state else []

    @property
    def answers(self) -> dict[int, str]:
        """The chosen prompt's answers by step; of two at one step the later."""
        state, prompts = self._state(), self.prompts
        if state is None or not prompts:
            return {}
        chosen = prompts[min(self.prompt, len(prompts) - 1)]
        return {sample.step: sample.text for sample in state.samples if sample.prompt == chosen}

    def show_frame(self) -> None:
        """Bring the page up to date."""
        state, prompts, answers = self._state(), self.prompts, self.answers
        if state is None or not answers:
            return
        steps = list(answers)
        at = self.frame % len(steps)
        step = steps[at]
        width = max(8, self.query_one("#film-frame").size.width)
        head = [f"step {step}", f"answer {at + 1} of {len(steps)}"]
        if losses := self._loss_at(state, step):
            head.append(losses)
        prompt = min(self.prompt, len(prompts) - 1)
        lines = [
            Content("   ".join(head)).stylize("bold"),
            bar((at + 1) / len(steps), width),
            Content(""),
            Content.assemble(
                (f"prompt {prompt + 1} of {len(prompts)} ", "$text-muted"), clean(prompts[prompt])
            ),
            Content(""),
            Content(clean(answers[step]).strip()),
        ]
        self.query_one("#film-frame", Static).update(Content("\n").join(lines))

    @staticmethod
    def _loss_at(state: RunState, step: int) -> str:
        validation = state.series.validation
        place = bisect_right(validation.steps, step) - 1
        return f"validation {loss_text(validation.values[place])}" if place >= 0 else ""

    def action_frame(self, by: int) -> None:
        count = len(self.answers)
        if count:
            at = min(count - 1, max(0, self.frame % count + by))
            self.frame = -1 if at == count - 1 else at
            self._turned()

    def action_prompt(self, by: int) -> None:
        if prompts := self.prompts:
            step = self._step()
            self.prompt = (self.prompt + by) % len(prompts)
            self._stay_at(step)
            self._turned()

    def _step(self) -> int:
        steps = list(self.answers)
        return steps[self.frame % len(steps)] if steps else 0

    def _stay_at(self, step: int) -> None:
        """Another prompt's answer of the same time."""
        steps = list(self.answers)
        at = max(0, bisect_right(steps, step) - 1)
        self.frame = -1 if self.frame == -1 or at == len(steps) - 1 else at

    def _turned(self) -> None:
        self.query_one(VerticalScroll).scroll_home(animate=False)
        self.show_frame()

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_copy(self) -> None:
        prompts, answers = self.prompts, self.answers
        if answers:
            prompt = clean_line(prompts[min(self.prompt, len(prompts) - 1)])
            self.app.copy_to_clipboard(f"{prompt}\n{clean(answers[self._step()])}")
            self.app.notify("Copied.")
