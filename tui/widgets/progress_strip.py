"""The lines under the chart: how far the run is, at what pace, and on what means."""

import time

from textual.content import Content
from textual.widget import Widget

from tui.clean import clean_line
from tui.figures import bytes_text, count_text, duration_text, loss_text, rate_text
from tui.run_state import RunState

_SHORTEST_BAR = 8


class ProgressStrip(Widget):
    """A bar, then `step 412/900  46 %  ETA 3:42  5.9k tok/s  3:10`, as far as there is room."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.state: RunState | None = None

    def show(self, state: RunState | None) -> None:
        """Show this run's progress; call it again whenever something has changed."""
        self.state = state
        self.refresh()

    def render(self) -> Content:
        state = self.state
        if state is None or state.started is None:
            return Content("")
        if state.preparation:
            done = state.preparation
            counts = f"{count_text(done.documents)} documents, {count_text(done.tokens)} tokens"
            return Content(f"preparing {clean_line(done.what, 40)}: {counts}")
        share = min(1.0, state.step / state.steps) if state.steps else 0.0
        text = "  ".join(fit(_progress_parts(state, share), self.size.width - _SHORTEST_BAR - 2, 2))
        return Content.assemble(bar(share, max(0, self.size.width - len(text) - 2)), f"  {text}")


def _progress_parts(state: RunState, share: float) -> list[str]:
    now = time.time()
    parts = [f"step {state.step}/{state.steps}", f"{share:.0%}".replace("%", " %")]
    if within := state.within_step:
        parts.insert(1, f"micro-batch {within[0]}/{within[1]}")
    remaining_s = state.remaining_s(now)
    if remaining_s is not None:
        parts.append(f"ETA {duration_text(remaining_s)}")
    if state.train:
        parts.append(f"{count_text(state.train.tokens_per_s)} tok/s")
    elapsed_s = state.elapsed_s(now)
    if elapsed_s is not None:
        parts.append(duration_text(elapsed_s))
    if state.train:
        parts.append(f"{count_text(state.train.tokens)} tokens")
    return parts


def bar(share: float, width: int) -> Content:
    """A bar that is legible without colour: heavy where done, light where not."""
    done = round(share * width * 2)
    whole, half = divmod(done, 2)
    heavy = "━" * whole + ("╸" if half else "")
    return Content.assemble((heavy, "$primary"), ("─" * max(0, width - len(heavy)), "$text-muted"))


def fit(parts: list[str], width: int, gap: int) -> list[str]:
    """The first parts that have room side by side, in their order; at least one."""
    kept: list[str] = []
    used = -gap
    for part in parts:
        if kept and used + gap + len(part) > width:
            break
        kept.append(part)
        used += gap + len(part)
    return kept


def figures_line(state: RunState, width: int, most_lines: int = 1) -> str:
    """`rate 1.2e-3 cosine   grad .41   checkpoint in 88   memory 1.1 GB   disk 79 GB`, as far as it fits.

    Of a run that is over, why it ended, where that was said, and of one that paused by itself, why: these are words
    that may go on in the next line, up to `most_lines`.
    """
    room = width * most_lines - 10 * (most_lines - 1)  # lines break between words
    if state.state == "interrupted":
        at = state.checkpoint_step
        return f"Its process is gone. R {f'resumes from step {at}' if at else 'begins it again'}."
    if state.ended and state.ended.message and not state.is_live:
        # Why it ended matters more than its last figures; all of it is in the Runs tab, and `y` copies it.
        return clean_line(state.ended.message, room)
    if state.is_paused and state.is_live and state.pause_reason:
        return clean_line(f"{state.pause_reason} Free some space, then p.", room)
    parts = []
    if train := state.train:
        schedule = f" {state.config.optim.schedule}" if state.config and width >= 70 else ""
        parts = [f"rate {rate_text(train.learning_rate)}{schedule}", f"grad {loss_text(train.grad_norm)[:5]}"]
    if (steps := state.checkpoint_in()) is not None:
        parts.append(f"checkpoint in {steps}" if width >= 70 else f"save in {steps}")
    if state.memory_bytes and state.is_live:
        parts.append(
            f"memory {bytes_text(state.memory_bytes)}" if width >= 60 else bytes_text(state.memory_bytes)
        )
    if state.disk_free_bytes and state.is_live:
        parts.append(
            f"disk {bytes_text(state.disk_free_bytes)} left"
            if width >= 90
            else f"disk {bytes_text(state.disk_free_bytes)}"
        )
    gap = 3 if sum(map(len, parts)) + 3 * (len(parts) - 1) <= width else 2
    return (" " * gap).join(fit(parts, width, gap))
