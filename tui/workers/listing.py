"""What runs there are, read off the UI thread: rows for tables and lists, and which models can be talked to."""

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.config import STAGES, Stage, stage_title
from core.errors import BbtuiError
from core.event_log import Follower
from core.events import NoteAdded, RunStarted, event_from_line
from core.housekeeping import bytes_of
from core.runs import Run, Runs
from core.summary import Summary
from tui.run_state import state_glyph


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run as a list shows it."""

    run: Run
    summary: Summary
    preset: str
    checkpoint_steps: Sequence[int]
    bytes_used: int = 0

    @property
    def state(self) -> str:
        """Sign and word."""
        return f"{state_glyph(self.summary.state)} {self.summary.state}"

    @property
    def can_resume(self) -> bool:
        """Whether the run ended, or was cut off, before its last step."""
        return self.summary.state not in ("completed", "running", "paused")


@dataclass(frozen=True, slots=True)
class RunDetails:
    """What takes longer to find out, and is found for one run only."""

    row: RunRow
    lineage: list[str]
    bytes_used: int
    checkpoint_bytes: dict[int, int] = field(default_factory=dict)
    notes: Sequence[NoteAdded] = ()


@dataclass(frozen=True, slots=True)
class Model:
    """A run's last checkpoint, as its manifest names it; whether that is true, loading it tells."""

    run: Run
    step: int
    sha256: str
    """Of the weights; empty where the manifest cannot be read."""


@dataclass(frozen=True, slots=True)
class Models:
    """The two models to talk to or to measure; None where one is not there yet."""

    general: Model | None
    baseball: Model | None
    stages_done: frozenset[str]

    @property
    def is_pair(self) -> bool:
        return self.general is not None and self.baseball is not None


class Lister:
    """Reads the runs under a root; what has not changed since the last look is not read again."""

    def __init__(self, store: Runs) -> None:
        self.store = store
        self._known: dict[Path, tuple[tuple[int, int, int], RunRow]] = {}
        self._notes: dict[Path, tuple[Follower, list[NoteAdded]]] = {}
        self._is_noting = threading.Lock()

    def rows(self) -> list[RunRow]:
        """Every run, the newest first."""
        rows = [self._row(run) for run in self.store.all()]
        self._known = {row.run.folder: self._known[row.run.folder] for row in rows}
        return sorted(rows, key=_newest_last, reverse=True)

    def _row(self, run: Run) -> RunRow:
        try:
            log = run.events_file.stat()
            # A checkpoint that goes changes the folder, and nothing in the log.
            stamp = (log.st_mtime_ns, log.st_size, run.folder.stat().st_mtime_ns)
        except OSError:
            stamp = (0, 0, 0)
        known = self._known.get(run.folder)
        # A live run can die without a word in its log, and another process may take up a quiet one.
        if known and known[0] == stamp and stamp[1] and not known[1].summary.is_live and not run.is_held():
            return known[1]
        try:
            preset = run.config.preset or "own"
        except BbtuiError:
            preset = "unreadable"
        row = RunRow(run, run.summary(), preset, tuple(run.checkpoint_steps()), bytes_of(run).total)
        self._known[run.folder] = (stamp, row)
        return row

    def details(self, row: RunRow) -> RunDetails:
        """The run's lineage, its sizes on disk, and the notes on it."""
        try:
            lineage = [run.name for run in self.store.lineage(row.run)]
        except BbtuiError:
            lineage = [row.run.name]
        sizes = bytes_of(row.run)
        return RunDetails(row, lineage, sizes.total, sizes.checkpoints, self._notes_on(row.run))

    def _notes_on(self, run: Run) -> list[NoteAdded]:
        """The notes that hold; of a log read before, only what is new is read."""
        with self._is_noting:
            follower, notes = self._notes.get(run.folder, (Follower(run.events_file), []))
            for block in follower.blocks():
                # Hardly any line is one of these two; the others need not be parsed.
                for line in block.splitlines() if b"NoteAdded" in block or b"RunStarted" in block else ():
                    event = event_from_line(line) if b"NoteAdded" in line or b"RunStarted" in line else None
                    if isinstance(event, RunStarted):
                        notes = [note for note in notes if note.step <= event.resumed_from_step]
                    elif isinstance(event, NoteAdded):
                        notes.append(event)
            self._notes[run.folder] = follower, notes
            return list(notes)


def models_of(store: Runs) -> Models:
    """The newest pair; where there is none, the newest finished run of each of its two stages."""
    done = frozenset(stage for stage in STAGES if store.newest(stage))
    general, baseball = store.newest_pair() or (store.newest("finetune"), store.newest("baseball-finetune"))
    return Models(general and model_of(general), baseball and model_of(baseball), done)


def model_of(run: Run) -> Model | None:
    """The run's last checkpoint, or None where it has none."""
    steps = run.checkpoint_steps()
    if not steps:
        return None
    try:
        # The manifest is read here because core.checkpoint needs torch, which a title must not wait for.
        manifest = json.loads(
            (run.checkpoint_folder(steps[-1]) / "MANIFEST.json").read_text(encoding="utf-8")
        )
        sha256 = str(manifest["files"]["model.safetensors"]["sha256"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        sha256 = ""
    return Model(run, steps[-1], sha256)


def missing_words(wanted: Stage, models: Models, domain: str) -> str:
    """What has to be done before there is a model of that stage, with the keys that do it."""
    kind = "general" if wanted == "finetune" else domain
    stages = STAGES[: STAGES.index(wanted) + 1]
    missing = next((stage for stage in stages if stage not in models.stages_done), wanted)
    key = STAGES.index(missing) + 1
    if missing == "pretrain":
        return f"No {kind} model yet. Press 1, then Enter, to pretrain."
    before = stage_title(STAGES[key - 2], domain)
    return (
        f"No {kind} model yet: {before} is done. Press {key}, then Enter, for {stage_title(missing, domain)}."
    )


def role_of(run: Run, domain: str) -> str:
    """What a model is called on the screen: General, the domain's name, or its stage."""
    if run.stage == "finetune":
        return "General"
    return domain.capitalize() if run.stage == "baseball-finetune" else stage_title(run.stage, domain)


def _newest_last(row: RunRow) -> tuple[bool, str, str]:
    # A run that has not begun has no instant; it is the newest there is.
    return (not row.summary.started_at, row.summary.started_at, row.run.id)
