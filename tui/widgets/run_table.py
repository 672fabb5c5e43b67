"""The table of the Runs tab, and what its panel says of one run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.widgets import DataTable

from core.runs import Run
from tui.clean import clean_line
from tui.figures import bytes_text, count_text, local_time_text, loss_text
from tui.workers.listing import RunDetails, RunRow

_WIDTH_FOR_SIZES = 100
_WIDTH_FOR_NAMES = 130
MARK = "◆"
_BEFORE_SIZE = ("stage", "run", "state", "step", "train", "val", "tokens")
_AFTER_SIZE = ("started", "preset", "parent")
_ALSO_IN_PANEL = ("preset", "parent")
_BESIDE = 2
"""Columns that the table's edge and its scroll bar take."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What there is room for."""

    has_sizes: bool
    has_names: bool
    """Whether runs are named in full."""
    width: int

    @classmethod
    def of(cls, width: int) -> "Layout":
        return cls(width >= _WIDTH_FOR_SIZES, width >= _WIDTH_FOR_NAMES, width)

    @property
    def columns(self) -> tuple[str, ...]:
        return (*_BEFORE_SIZE, *(["size"] if self.has_sizes else []), *_AFTER_SIZE)


class RunTable(DataTable[Text]):
    """A table of runs, a row each."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "enter", "select_cursor", "Open", tooltip="Show the run under the cursor in its stage's tab."
        ),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, cursor_type="row", cell_padding=0, zebra_stripes=False)
        self._cells: list[tuple[str, ...]] = []
        self._frame: tuple[tuple[str, ...], list[int], list[Run]] | None = None
        """The table's columns, their widths, its runs; while they stay, single cells are changed."""

    def show(self, rows: Sequence[RunRow], chosen: Run | None, marked: Run | None, layout: Layout) -> None:
        """Bring the table up to date; the cursor stays on its run, wherever that has moved."""
        names = layout.columns
        cells = [_cells_of(row, row.run == marked, layout) for row in rows]
        # Widths are given: the table's own measuring can come too late for the first picture.
        widths = [max(map(cell_len, column)) + 1 for column in zip(names, *cells, strict=True)]
        # What has no room as a whole is left out, if the panel says it too.
        while names[-1] in _ALSO_IN_PANEL and sum(widths) > layout.width - _BESIDE:
            names, widths, cells = names[:-1], widths[:-1], [line[:-1] for line in cells]
        frame = (names, widths, [row.run for row in rows])
        if frame == self._frame:
            self._update(cells)
        else:
            self._fill(names, widths, cells)
            at = next((i for i, row in enumerate(rows) if row.run == chosen), 0)
            self.move_cursor(row=at, scroll=False)
        self._frame, self._cells = frame, cells

    def _fill(self, names: Sequence[str], widths: list[int], cells: list[tuple[str, ...]]) -> None:
        scroll = self.scroll_offset
        self.clear(columns=True)
        for name, width in zip(names, widths, strict=True):
            self.add_column(Text(name), key=name, width=width)
        for line in cells:
            self.add_row(*map(Text, line))
        self.scroll_to(*scroll, animate=False)

    def _update(self, cells: list[tuple[str, ...]]) -> None:
        for at, (line, before) in enumerate(zip(cells, self._cells, strict=True)):
            for column, (cell, old) in enumerate(zip(line, before, strict=True)):
                if cell != old:
                    self.update_cell_at(Coordinate(at, column), Text(cell))


def _cells_of(row: RunRow, is_marked: bool, layout: Layout) -> tuple[str, ...]:
    run, summary = row.run, row.summary
    name = run.id if layout.has_names else run.short_name.rpartition("/")[2]
    cells = (
        run.folder.parent.name,
        f"{MARK}{name}" if is_marked else name,
        row.state,
        f"{summary.step}/{summary.steps}",
        "–" if summary.train_loss is None else loss_text(summary.train_loss),
        "–" if summary.validation_loss is None else loss_text(summary.validation_loss),
        count_text(summary.tokens),
        *([bytes_text(row.bytes_used)] if layout.has_sizes else []),
        local_time_text(summary.started_at),
        row.preset,
        summary.parent if layout.has_names else short_reference(summary.parent),
    )
    return tuple(clean_line(cell, 60) for cell in cells)


def facts_of(details: RunDetails) -> list[str]:
    """What the panel says of a run, a fact a line."""
    row, run = details.row, details.row.run
    sizes = [f"{step} ({bytes_text(size)})" for step, size in details.checkpoint_bytes.items()]
    steps = f"step {', '.join(sizes)}" if sizes else "none"
    lines = [
        f"{run.name}   {row.state}   preset {row.preset}",
        *(f"note         step {note.step}: {clean_line(note.text, 200)}" for note in details.notes),
        f"parent       {row.summary.parent or 'none: random weights'}",
        f"path         {run.folder}",
        f"lineage      {' ← '.join(short_reference(name) for name in details.lineage)}",
        f"checkpoints  {steps}   in all {bytes_text(details.bytes_used)}",
        f"last active  {local_time_text(row.summary.last_at) or 'never'}",
    ]
    if row.summary.message:
        lines.insert(1, f"because      {clean_line(row.summary.message, 300)}")
    if row.can_resume:
        lines.insert(1, "unfinished   r resumes it from its last checkpoint")
    return lines


def short_reference(name: str) -> str:
    """`stage/` and the end of the id, the step kept: `pretrain/7f3a@600`."""
    stage, _, rest = name.partition("/")
    return f"{stage}/{rest.rpartition('-')[2]}" if rest else name
