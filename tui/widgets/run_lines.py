"""The lines over the chart, and the sample under it: a run in words and figures."""

import time

from textual.content import Content
from textual.widget import Widget

from core.config import PARENT_STAGE, StageConfig
from core.events import SampleDrawn
from tui.chart import View
from tui.clean import clean, clean_line
from tui.figures import change_text, count_text, loss_text
from tui.run_state import RunState, state_glyph
from tui.widgets.progress_strip import fit

_SILENCE_S = 60.0


class FactsLine(Widget):
    """`pretrain/7f3a · quickstart · 3.1M parameters · vocabulary 4096 · CPU bfloat16 · seed 7`."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.parts: list[str] = []

    def show(self, parts: list[str]) -> None:
        """Show these facts; the last ones are left out first where there is no room."""
        if parts != self.parts:
            self.parts = parts
            self.refresh()

    def render(self) -> Content:
        return Content(" · ".join(fit(self.parts, self.size.width, 3)))


def facts_of_run(state: RunState, is_own: bool) -> list[str]:
    """What identifies a run and its model."""
    config, started = state.config, state.started
    facts = [state.run.short_name]
    if state.is_live and not is_own:
        facts.append("trained by another process")
    if config:
        facts.append(config.preset or "own configuration")
    if started:
        facts.append(f"{count_text(started.parameters)} parameters")
    if config and config.tokenizer:
        facts.append(_vocabulary(config))
    if started:
        facts.append(f"{started.device.upper()} {started.precision}".strip())
    if config:
        facts.append(f"seed {config.seed}")
    return [clean_line(fact, 60) for fact in facts]


def facts_of_config(config: StageConfig) -> list[str]:
    """What a run of this configuration would be."""
    facts = [config.preset or "own configuration"]
    facts.append(f"{config.steps} steps" if config.steps else f"{config.epochs:g} epochs")
    if config.model and not PARENT_STAGE[config.stage]:
        facts.append(f"{config.model.layers} layers of width {config.model.width}")
    if config.tokenizer:
        facts.append(_vocabulary(config))
    facts += [f"data {config.data.source}", f"seed {config.seed}"]
    return [clean_line(fact, 60) for fact in facts]


def _vocabulary(config: StageConfig) -> str:
    trained = config.tokenizer and config.tokenizer.kind == "trained"
    return f"vocabulary {config.tokenizer.vocabulary if trained and config.tokenizer else 50257}"


def summary_of(state: RunState) -> str:
    """The run's figures in a few plain lines, for copying."""
    lines = [f"{state.run.name}: {state.state}, step {state.step} of {state.steps}"]
    if state.validated:
        lines.append(f"validation loss {loss_text(state.validated.loss)} at step {state.validated.step}")
    if state.train:
        lines.append(f"train loss {loss_text(state.train.loss)}, {state.train.tokens} tokens seen")
    if state.ended and state.ended.message:
        lines.append(clean_line(state.ended.message, 500))
    return "\n".join(lines)


class LossLine(Widget):
    """State and last losses; beside them how the chart is being looked at. It is the chart's legend, too."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.state: RunState | None = None
        self.notice = ""
        self.view = View()

    def show(self, state: RunState | None, view: View, notice: str = "") -> None:
        """Show this run's figures, or the notice where there is no run."""
        self.state, self.view, self.notice = state, view, notice
        self.refresh()

    def render(self) -> Content:
        if self.notice:
            return Content(self.notice)
        if self.state is None:
            return Content("")
        left = Content("   ").join(_loss_parts(self.state, self.size.width))
        right = view_words(self.view)
        if self.size.width < 100:
            right = right.removeprefix("x: tokens  ")
        gap = self.size.width - len(left) - len(right)
        return Content.assemble(left, " " * gap, (right, "$text-muted")) if gap >= 2 else left


def _loss_parts(state: RunState, width: int) -> list[Content]:
    word = clean_line(state.state, 20)
    glyph = state_glyph(word)
    if word.startswith("SIG"):
        word = f"stopped by {word}"
    if state.replay_speed:
        word = f"replay ×{state.replay_speed:g}{', held' if state.is_held else ''}"
    parts = [Content(f"{glyph} {word}{_silence(state)}").stylize("bold")]
    if now := state.validated:
        before = state.validated_before
        change = f" {change_text(now.loss, before.loss)}" if before else ""
        parts.append(Content.assemble(("● val ", "$text-warning"), (loss_text(now.loss), "bold"), change))
        if now.bits_per_byte == now.bits_per_byte and width >= 90:
            parts.append(Content(f"{loss_text(now.bits_per_byte)} bits/byte"))
    if state.train:
        values = state.series.train.values
        change = f" {change_text(values[-1], values[-2])}" if len(values) > 1 else ""
        parts.append(
            Content.assemble(("⠒ train ", "$text-primary"), (loss_text(state.train.loss), "bold"), change)
        )
    return parts


def _silence(state: RunState) -> str:
    silent_s = time.time() - state.last_at
    if state.state != "running" or not state.last_at or silent_s < _SILENCE_S:
        return ""
    return f", silent for {silent_s:.0f} s"


def view_words(view: View) -> str:
    """How the chart is looked at: `x: tokens  y: loss, log, latest half, smoothed .6`."""
    words = [view.shows]
    if view.is_log:
        words.append("log")
    if view.zoom < 1:
        words.append({0.5: "latest half", 0.2: "latest fifth"}.get(view.zoom, f"latest {view.zoom:.0%}"))
    if view.smoothing:
        words.append(f"smoothed {view.smoothing:g}".replace("0.", "."))
    return f"x: tokens  y: {', '.join(words)}"


class SampleBox(Widget, can_focus=True):
    """The latest sample in as many lines as it is given."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.sample: SampleDrawn | None = None

    def show(self, sample: SampleDrawn | None) -> None:
        """Show this sample."""
        if sample is not self.sample:
            self.sample = sample
            self.refresh()

    @property
    def text(self) -> str:
        """Prompt and continuation, for copying."""
        return f"{clean(self.sample.prompt)}\n{clean(self.sample.text)}" if self.sample else ""

    def render(self) -> Content:
        if self.sample is None:
            return Content("")
        room = max(10, self.size.width * self.size.height - len("sample ▸ ▸ "))
        prompt = clean_line(self.sample.prompt, 40)
        text = clean_line(self.sample.text, max(10, room - len(prompt)))
        return Content.assemble(("sample ", "bold"), (f"▸ {prompt} ", "$text-muted"), ("▸ ", "bold"), text)
