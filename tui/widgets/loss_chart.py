"""The chart of a run: loss against tokens seen, with marks, in the theme's colours."""

import time
from collections.abc import Sequence
from typing import Any

from rich.text import Text
from textual.app import RenderResult
from textual.color import Color, ColorParseError
from textual.content import Content
from textual.events import Show
from textual.timer import Timer
from textual.widget import Widget

from core.series import RunSeries
from tui import chart, shown
from tui.chart import Paint, View
from tui.shown import Ghost

_REDRAWS_PER_S = 4
# Of a training in this process: the chart must not take what a step could use.
_SHARE_OF_TIME = 0.01
_LONGEST_WAIT_S = 2.0
_GHOST_SHARE = 0.5


class LossChart(Widget):
    """Draws what `show` was given while it can be seen: four times a second at most, less often if it takes long."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.view = View()
        self.empty_text = ""
        """What stands in place of curves where there are none."""
        self.ghosts: Sequence[Ghost] = ()
        """Other runs, drawn behind the shown one."""
        self.planned_tokens = 0
        """What the shown run will have seen at its end; 0 if unknown."""
        self._series: RunSeries | None = None
        self._plot: Any = None
        self._drawn: RenderResult | None = None
        self._drawn_for: object = None
        self._drawn_at = 0.0
        self._drawing_s = 0.0
        """What the last drawing took."""
        self._lengths: tuple[int, ...] = ()
        """Of what was drawn; while they stay, there is nothing new to draw."""
        self._is_stale = False
        self._timer: Timer | None = None
        self.drawings = 0
        """How often it was drawn."""

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _theme: self.redraw())

    def on_show(self, _event: Show) -> None:
        if self._is_stale:
            self.redraw()

    def show(self, series: RunSeries | None, empty_text: str = "") -> None:
        """Show these series; call it again whenever they have grown."""
        if series is not self._series or empty_text != self.empty_text:
            self._series, self.empty_text = series, empty_text
            self.redraw()
            return
        if not self._is_stale and series and series.lengths == self._lengths:
            return
        self._is_stale = True
        if self._timer is None and self.is_on_screen:
            pause_s = max(1 / _REDRAWS_PER_S, min(_LONGEST_WAIT_S, self._drawing_s / _SHARE_OF_TIME))
            wait_s = max(0.0, self._drawn_at + pause_s - time.monotonic())
            self._timer = self.set_timer(max(0.001, wait_s), self.redraw)

    def look(self, view: View) -> None:
        """Change series, axis, zoom or smoothing."""
        self.view = view
        self.redraw()

    def show_ghosts(self, ghosts: Sequence[Ghost]) -> None:
        """Draw these runs behind the shown one."""
        if ghosts != self.ghosts:
            self.ghosts = ghosts
            self.redraw()

    def redraw(self) -> None:
        """Draw anew, if it can be seen; otherwise as soon as it can."""
        self._timer = None
        self._is_stale = True
        self._drawn = None
        if self.is_on_screen:
            self.refresh()

    @property
    def is_on_screen(self) -> bool:
        """Whether it has a place on the visible screen."""
        return self.is_attached and self.region.area > 0

    def render(self) -> RenderResult:
        size = (self.size.width, self.size.height)
        if self._drawn is None or self._drawn_for != size:
            began_at = time.monotonic()
            self._lengths = self._series.lengths if self._series else ()
            self._drawn = self._draw(size)
            self._drawn_for = size
            self._drawn_at = time.monotonic()
            self._drawing_s = self._drawn_at - began_at
            self._is_stale = False
            self.drawings += 1
        return self._drawn

    def _draw(self, size: tuple[int, int]) -> RenderResult:
        if self._series is not None and (self._series.train.values or self._series.validation.values):
            if self._plot is None:
                # Plotext is imported with the first curve, so that the first screen does not wait for it.
                from textual_plotext import Plot

                self._plot = Plot()
            paint = self.paint()
            curves = shown.curves_of(self._series, self.view, paint, self.ghosts, self.planned_tokens)
            if drawing := chart.draw(self._plot, curves, self._series.shown_marks, self.view, paint, size):
                return Text.from_ansi(drawing, no_wrap=True)
        return self._empty(size)

    def _empty(self, size: tuple[int, int]) -> Content:
        lines = self.empty_text.split("\n") if self.empty_text else []
        above = max(0, (size[1] - len(lines)) // 2)
        centred = [Content(line).pad_left(max(0, (size[0] - len(line)) // 2)) for line in lines]
        return Content("\n").join([Content("")] * above + centred)

    def paint(self) -> Paint:
        """The colours of the present theme."""
        background = self.background_colors[1]
        return Paint(
            background="default" if background.ansi is not None else background.rgb,
            axis=self._theme_color("text-muted", "foreground"),
            train=self._theme_color("text-primary", "primary"),
            validation=self._theme_color("text-warning", "warning"),
            mark=self._theme_color("foreground"),
            ghost=self._dim(self._theme_color("foreground")),
        )

    def _dim(self, color: chart.Color) -> chart.Color:
        """A colour half gone into the background, where the theme has colours of its own."""
        background = self.background_colors[1]
        if background.ansi is not None or isinstance(color, str):
            return color
        return background.blend(Color(*color), _GHOST_SHARE).rgb

    def _theme_color(self, *names: str) -> chart.Color:
        """The first of the theme's variables that is a colour of its own, else the terminal's own."""
        variables = self.app.theme_variables
        for name in names:
            try:
                color = Color.parse(variables[name])
            except (KeyError, ColorParseError):
                continue
            if color.ansi is None:
                return color.rgb
        return "default"
