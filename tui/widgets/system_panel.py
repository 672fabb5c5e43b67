"""The page of what the machine does: bars of shares, lines of the last minute, legible without colour."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.events import Resize
from textual.screen import ModalScreen
from textual.widgets import Static

from tui.clean import clean_line
from tui.figures import bytes_text, count_text
from tui.widgets.progress_strip import bar, fit
from tui.workers.gpus import Gpu
from tui.workers.meters import Meters, MetersRead, ProcessFigures, Reading

_LEVELS = "▁▂▃▄▅▆▇█"
_KEPT_S = 60
_NAME_WIDTH = 12
_TEXT_WIDTH = 22
_SHORTEST_BAR = 8
_LONGEST_BAR = 40


@dataclass(frozen=True, slots=True)
class ShownRun:
    """The run whose pace and process are shown beside the machine's figures."""

    name: str
    process_id: int
    tokens_per_s: float | None
    """None where it is not training."""


class Minute:
    """The last sixty values of each series, newest last."""

    def __init__(self) -> None:
        self.cpu: deque[float] = deque(maxlen=_KEPT_S)
        self.memory: deque[float] = deque(maxlen=_KEPT_S)
        self.tokens_per_s: deque[float] = deque(maxlen=_KEPT_S)

    def add(self, reading: Reading, run: ShownRun | None) -> None:
        if reading.cpu_percent is not None:
            self.cpu.append(reading.cpu_percent)
        if reading.memory_bytes:
            self.memory.append(100 * reading.memory_used_bytes / reading.memory_bytes)
        if run and run.tokens_per_s is not None:
            self.tokens_per_s.append(run.tokens_per_s)


def levels(values: Sequence[float], most: float) -> str:
    """A character for each value, higher for more; `most` fills it."""
    last = len(_LEVELS) - 1
    return "".join(
        _LEVELS[min(last, max(0, int(value / most * len(_LEVELS))))] if most else _LEVELS[0]
        for value in values
    )


def page(reading: Reading, minute: Minute, run: ShownRun | None, width: int) -> Content:
    """Every figure on lines of at most `width` columns."""
    lines = [
        *_processor(reading, minute, width),
        _share("Memory", reading.memory_used_bytes, reading.memory_bytes, width),
        *_course(minute.memory, 100.0, width),
        _share("Swap", reading.swap_used_bytes, reading.swap_bytes, width),
        *_disk(reading, width),
    ]
    for number, gpu in enumerate(reading.gpus):
        lines += _gpu(gpu, f"GPU {number}" if len(reading.gpus) > 1 else "GPU", width)
    if not reading.gpus:
        lines.append(_line("GPU", reading.gpu_words))
    lines.append(_line("This app", _process_text(reading.app, width)))
    if run:
        if reading.trainer:
            lines.append(_line("Training", _process_text(reading.trainer, width, run.name)))
        else:
            lines.append(_line("Training", f"{run.name}, in this app's process"))
        pace = (
            f"{count_text(run.tokens_per_s)} tokens/s"
            if run.tokens_per_s is not None
            else "paused, or not begun"
        )
        lines.append(_line("Pace", pace))
        lines += _course(minute.tokens_per_s, max(minute.tokens_per_s, default=0.0), width)
    return Content("\n").join(lines)


def _line(name: str, text: str) -> Content:
    return Content.assemble((f"{name:<{_NAME_WIDTH}}", "bold"), text)


def _share(name: str, part: float, whole: float, width: int, rest: str = "") -> Content:
    """`Memory ━━━━────  41 %  3.3 of 8.1 GB`"""
    if not whole:
        return _line(name, "none")
    return _barred(name, part / whole, rest or f"{bytes_text(part)} of {bytes_text(whole)}", width)


def _barred(name: str, share: float, text: str, width: int) -> Content:
    """A bar, its share, and a word; all bars of a page begin and end in the same columns."""
    room = width - _NAME_WIDTH - _TEXT_WIDTH - 8
    drawn = bar(min(1.0, share), max(_SHORTEST_BAR, min(_LONGEST_BAR, room)))
    percent = f"{share:5.0%}".replace("%", " %")
    return Content.assemble((f"{name:<{_NAME_WIDTH}}", "bold"), drawn, f"{percent}  {text}")


def _course(values: Sequence[float], most: float, width: int) -> list[Content]:
    """The last minute on a line of its own, a column a second, the newest at its right."""
    room = max(1, min(_KEPT_S, width - _NAME_WIDTH))
    drawn = levels(list(values)[-room:], most)
    return [Content(f"{'  last 60 s':<{_NAME_WIDTH}}{drawn.rjust(room)}")] if drawn else []


def _processor(reading: Reading, minute: Minute, width: int) -> list[Content]:
    load = "  ".join(f"{value:.2f}" for value in reading.load)
    if reading.cpu_percent is None:
        return [_line("CPU", "…"), _line("  load", load)]
    count = len(reading.core_percents)
    lines = [_barred("CPU", reading.cpu_percent / 100, f"{count} core{'s' if count != 1 else ''}", width)]
    lines += _course(minute.cpu, 100.0, width)
    each = levels(reading.core_percents, 100.0)
    room = max(1, width - _NAME_WIDTH)
    rows = [each[start : start + room] for start in range(0, count, room)]
    lines += [_line("  each core" if row is rows[0] else "", row) for row in rows]
    return [*lines, _line("  load", f"{load}  (1, 5, 15 min)")]


def _disk(reading: Reading, width: int) -> list[Content]:
    used = reading.disk_bytes - reading.disk_free_bytes
    free = f"{bytes_text(reading.disk_free_bytes)} free of {bytes_text(reading.disk_bytes)}"
    size = "adding up…" if reading.checkpoints_bytes is None else bytes_text(reading.checkpoints_bytes)
    return [_share("Disk", used, reading.disk_bytes, width, free), _line("Checkpoints", size)]


def _gpu(gpu: Gpu, name: str, width: int) -> list[Content]:
    parts = [clean_line(gpu.name, 32)]
    if gpu.celsius is not None:
        parts.append(f"{gpu.celsius:.0f} °C")
    if gpu.watts is not None:
        parts.append(f"{gpu.watts:.0f} of {gpu.most_watts:.0f} W" if gpu.most_watts else f"{gpu.watts:.0f} W")
    lines = [_line(name, "  ".join(fit(parts, width - _NAME_WIDTH, 2)))]
    if gpu.busy_percent is not None:
        lines.append(_barred("  busy", gpu.busy_percent / 100, "", width))
    if gpu.memory_bytes and gpu.memory_used_bytes is not None:
        lines.append(_share("  memory", gpu.memory_used_bytes, gpu.memory_bytes, width))
    return lines


def _process_text(figures: ProcessFigures | None, width: int, name: str = "") -> str:
    if figures is None:
        return "gone"
    parts = [
        *([name] if name else []),
        f"CPU {figures.cpu_percent:.0f} %",
        bytes_text(figures.memory_bytes),
        f"{figures.threads} threads",
        *([f"{figures.files} files"] if figures.files else []),
        f"process {figures.process_id}",
    ]
    return "  ".join(fit(parts, width - _NAME_WIDTH, 2))


class SystemPanel(ModalScreen[None]):
    """Has the meters read while it stands.

    Args:
        shown_run: asked at each reading for the run to show; None for none.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f5,q", "leave", "Close", tooltip="Close this page; nothing is measured any more."),
        Binding("y", "copy", "Copy", tooltip="Copy these figures."),
    ]

    def __init__(self, meters: Meters, shown_run: Callable[[], ShownRun | None]) -> None:
        super().__init__()
        self.reading: Reading | None = None
        self._meters = meters
        self._shown_run = shown_run
        self._run: ShownRun | None = None
        self._minute = Minute()

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="page") as box:
            box.border_title = "System"
            box.border_subtitle = "esc close   y copy"
            yield Static(Content("Reading…"), id="system-page")

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()
        self._look()

    def on_unmount(self) -> None:
        self._meters.look_away(self.post_message)

    def _look(self) -> None:
        self._run = self._shown_run()
        self._meters.look(self.post_message, self._run.process_id if self._run else 0)

    @on(MetersRead)
    def _read(self, message: MetersRead) -> None:
        message.stop()
        if not self.is_mounted:
            return
        self._look()
        self.reading = message.reading
        self._minute.add(message.reading, self._run)
        self._draw()

    @on(Resize)
    def _draw(self) -> None:
        if self.reading:
            width = self.query_one("#system-page").size.width
            self.query_one("#system-page", Static).update(page(self.reading, self._minute, self._run, width))

    def action_leave(self) -> None:
        self.dismiss()

    def action_copy(self) -> None:
        if self.reading is None:
            self.app.notify("Nothing is read yet.")
            return
        text = page(self.reading, self._minute, self._run, 100).plain
        self.app.copy_to_clipboard(f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n{text}")
        self.app.notify("The figures are copied.")
