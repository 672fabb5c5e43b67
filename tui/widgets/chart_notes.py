"""The lines between the losses and the chart: what a change did, whose ghosts are drawn, how many answers are right."""

from collections.abc import Sequence

from textual.content import Content
from textual.widget import Widget

from core.series import Effect, RunSeries
from tui.clean import clean_line
from tui.shown import ANSWER_MARKERS, LOSS, Ghost, is_by_share

_LONGEST_NAME = 28
_COLUMNS_FOR_STEP = 70


class ChartNotes(Widget):
    """One line a note, as many as there are; none takes no room."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.lines: list[str] = []

    def show(self, lines: Sequence[str], most: int = 3) -> None:
        """Show these lines, the first `most` of them that say anything."""
        lines = [line for line in lines if line][:most]
        if lines != self.lines:
            self.lines = lines
            self.display = bool(lines)
            self.styles.height = max(1, len(lines))
            self.refresh()

    def render(self) -> Content:
        width = self.size.width
        # What is foreign in them has been cleaned where it was put in.
        return Content("\n").join(
            Content(line if len(line) <= width else line[: max(0, width - 1)] + "…") for line in self.lines
        )


def answers_words(series: RunSeries, shows: str) -> str:
    """`right answers: ● baseball .261  ▲ general .112`; the signs only where they are the chart's."""
    parts = []
    for place, (name, each) in enumerate(series.answers.items()):
        sign = f"{ANSWER_MARKERS[place]} " if shows != LOSS and place < len(ANSWER_MARKERS) else ""
        short = clean_line(name.removesuffix("-heldout"), _LONGEST_NAME)
        parts.append(f"{sign}{short} {(each.last() or 0.0):.3f}".replace(" 0.", " ."))
    return f"right answers: {'  '.join(parts)}" if parts else ""


def ghosts_words(ghosts: Sequence[Ghost], series: RunSeries, planned_tokens: int) -> str:
    """`behind: ○ pretrain/7f3a  △ pretrain/b21c  × published, by share of the run`."""
    parts = []
    for ghost in ghosts:
        share = ", by share of the run" if is_by_share(ghost, series, planned_tokens) else ""
        parts.append(f"{ghost.marker} {clean_line(ghost.name, _LONGEST_NAME)}{share}")
    return f"behind: {'  '.join(parts)}" if parts else ""


def effect_words(effect: Effect, width: int) -> str:
    """`since rate ×½ at step 412: −0.21 before, −0.35 after, per 1M tokens`, in fewer words where it is narrow."""
    start = f"since {clean_line(effect.mark.label, _LONGEST_NAME)}"
    if width >= _COLUMNS_FOR_STEP:
        start += f" at step {effect.mark.step}"
    if effect.before is None or effect.after is None:
        return f"{start}: too early to tell"
    steepest = max(abs(effect.before), abs(effect.after))
    tokens, unit = next(
        ((size, name) for size, name in ((1e3, "1k"), (1e6, "1M"), (1e9, "1B")) if steepest * size >= 0.05),
        (1e12, "1T"),
    )
    before, after = (f"{slope * tokens:+.2f}".replace("-", "−") for slope in (effect.before, effect.after))
    if width < _COLUMNS_FOR_STEP:
        return f"{start}: {before} → {after} per {unit} tokens"
    return f"{start}: {before} before, {after} after, per {unit} tokens"
