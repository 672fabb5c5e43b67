"""A run is a folder: its configuration, its events, its commands, its checkpoints, its lock.

Whoever watches a run reads `events.jsonl` and appends to `commands.jsonl`; it does not matter which process trains.
"""

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from datetime import date
from functools import cached_property
from pathlib import Path

from core.commands import Command
from core.config import STAGES, Stage, StageConfig, check_stage_name, load_file, to_toml
from core.errors import MissingError, RetryLaterError, RunBusyError, UsageError
from core.event_log import append_line
from core.events import Event, RunStarted, event_from_line
from core.hold import held, is_held
from core.summary import Summary, summary_of

_REFERENCE = re.compile(
    r"^(?:(?P<stage>[a-z-]+)/)?(?P<run>[A-Za-z0-9][A-Za-z0-9._-]*)(?:@(?P<at>[a-z0-9-]{1,18}))?\Z"
)
PUBLISHED = "published"
"""Id and preset of the run that is made of published figures: it has no weights to go on from."""
_STEP_FOLDER = re.compile(r"^step-(\d{7,})$")


def find_root(given: str | Path | None = None) -> Path:
    """The folder that holds `checkpoints/`: the one given, `BBTUI_ROOT`, the project's, or the current one."""
    if chosen := given or os.environ.get("BBTUI_ROOT"):
        return Path(chosen).expanduser().absolute()
    project = Path(__file__).parent.parent
    return project if (project / "pyproject.toml").is_file() else Path.cwd()


def data_folder(root: Path) -> Path:
    """Where prepared shards lie: `BBTUI_DATA`, or `.data` under the root."""
    given = os.environ.get("BBTUI_DATA")
    return Path(given).expanduser().absolute() if given else root / ".data"


class Run:
    """One run folder. Making the object touches nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def stage(self) -> Stage:
        return check_stage_name(self.folder.parent.name)

    @property
    def name(self) -> str:
        """`stage/id`, which names it everywhere."""
        return f"{self.folder.parent.name}/{self.id}"

    @property
    def short_name(self) -> str:
        """`stage/` and the four characters that end the id, for titles."""
        return f"{self.folder.parent.name}/{self.id.rpartition('-')[2]}"

    @property
    def events_file(self) -> Path:
        return self.folder / "events.jsonl"

    @property
    def commands_file(self) -> Path:
        return self.folder / "commands.jsonl"

    @property
    def _lock_file(self) -> Path:
        return self.folder / "run.lock"

    @cached_property
    def config(self) -> StageConfig:
        """The configuration that the run was started with."""
        return load_file(self.folder / "config.toml", self.folder, trusted=True)

    def __repr__(self) -> str:
        return f"Run({self.name})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and other.folder == self.folder

    def __hash__(self) -> int:
        return hash(self.folder)

    # ------------------------------------------------------------ events and commands

    def append(self, event: Event) -> None:
        """Add an event to the log; it stands there, whole, even if the process is killed right after."""
        append_line(self.events_file, event.to_line())

    def tell(self, command: Command) -> None:
        """Add a command for whoever trains this run; it is obeyed within one micro-batch."""
        append_line(self.commands_file, command.to_line())

    def events(self) -> Iterator[Event]:
        """Every event of the log, in order, as written; see `present_events` for what still holds."""
        if self.events_file.is_file():
            with self.events_file.open("rb") as lines:
                for line in lines:
                    if event := event_from_line(line):
                        yield event

    def present_events(self) -> list[Event]:
        """The events that still hold: a resumed run takes the steps after its checkpoint again."""
        kept: list[Event] = []
        for event in self.events():
            if isinstance(event, RunStarted):
                # Of a run that begins again nothing holds, step 0 included.
                holds_to = event.resumed_from_step or -1
                kept = [e for e in kept if getattr(e, "step", -1) <= holds_to]
            kept.append(event)
        return kept

    def mend_log(self) -> None:
        """End a line that a kill has cut, so that the next event starts on its own."""
        for path in (self.events_file, self.commands_file):
            if path.is_file() and path.stat().st_size:
                with path.open("rb+") as log:
                    log.seek(-1, os.SEEK_END)
                    if log.read(1) != b"\n":
                        log.write(b"\n")

    # ------------------------------------------------------------ state

    def held(self) -> contextlib.AbstractContextManager[None]:
        """Hold the lock that the training process holds. Raises: RunBusyError where another one does; MissingError."""
        # The lock would make the folder of a removed run again.
        if not self.folder.is_dir():
            raise MissingError(f"There is no run {self.name} any more.", "See `bbtui runs list`.")
        busy = f"Another process is training {self.name}."
        return held(self._lock_file, RunBusyError(busy, "Watch it in the app, or stop it there first."))

    def is_held(self) -> bool:
        """Whether some process, this one included, is training the run."""
        return is_held(self._lock_file)

    def summary(self) -> Summary:
        """State and last figures, read from the end of the log only."""
        return summary_of(self.events_file, self.is_held)

    # ------------------------------------------------------------ checkpoints by name

    def checkpoint_steps(self) -> list[int]:
        """Steps that have a checkpoint folder, oldest first. Whether one is whole, its manifest tells."""
        if not self.folder.is_dir():
            return []
        steps = (step_of(path.name) for path in self.folder.iterdir())
        return sorted(step for step in steps if step is not None)

    def checkpoint_folder(self, step: int) -> Path:
        return self.folder / f"step-{step:07d}"


class Runs:
    """All runs under a root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "checkpoints"

    def create(self, config: StageConfig) -> Run:
        """A new run folder with its configuration written. Raises: RetryLaterError if it cannot be written."""
        stem = (
            f"{date.today().isoformat()}-{re.sub(r'[^A-Za-z0-9]+', '-', config.preset or 'own').strip('-')}"
        )
        try:
            while True:
                run = Run(self.folder / config.stage / f"{stem}-{secrets.token_hex(2)}")
                if self._with_id(run.id):
                    continue
                run.folder.mkdir(parents=True)
                (run.folder / "config.toml").write_text(to_toml(config), encoding="utf-8")
                return run
        except OSError as error:
            raise RetryLaterError(
                f"Cannot make a run folder under {self.folder}: {error.strerror}.",
                "Free disk space or choose another folder with --root.",
            ) from None

    def all(self, stage: str | None = None) -> list[Run]:
        """The runs of one stage, or of all four, oldest first by id."""
        runs = []
        for name in [stage] if stage else STAGES:
            folder = self.folder / name
            if folder.is_dir():
                # What a removal has hidden is no run any more.
                paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
                runs += [Run(path) for path in paths if (path / "config.toml").is_file()]
        return runs

    def find(self, reference: str) -> tuple[Run, str]:
        """The run that a reference names, and what follows its `@` ("last" where nothing does).

        Args:
            reference: an id, a unique prefix of one, the end of one, or STAGE/ID, each with @best, @last or @STEP.
        Raises: UsageError for a malformed or ambiguous one; MissingError where there is no such run.
        """
        match = _REFERENCE.match(reference)
        if not match or ".." in reference:
            raise UsageError(
                f"{reference[:80]!r} does not name a run.",
                "Give an id as `bbtui runs list` shows it, or STAGE/ID.",
            )
        stage = check_stage_name(match["stage"]) if match["stage"] else None
        candidates = self.all(stage)
        found = (
            [run for run in candidates if run.id == match["run"]]
            or [run for run in candidates if run.id.startswith(match["run"])]
            or [run for run in candidates if run.id.endswith("-" + match["run"])]
        )
        if not found:
            raise MissingError(
                f"There is no run {reference[:80]!r} under {self.folder}.", "See `bbtui runs list`."
            )
        if len(found) > 1:
            names = ", ".join(run.name for run in found[:5])
            raise UsageError(
                f"{reference[:80]!r} could be {len(found)} runs: {names}.", "Write more of the id."
            )
        at = match["at"] or "last"
        if at not in ("last", "best") and not at.isdigit():
            raise UsageError(f"{reference[:80]!r}: @{at} is not @last, @best or a step number.")
        return found[0], at

    def newest(self, stage: str, *, preset: str | None = None, finished: bool = True) -> Run | None:
        """The run of a stage that ended (or, with `finished` false, was active) last.

        A finished one of which only the log was kept is passed over: nothing can start from it.
        """
        best: tuple[str, Run] | None = None
        for run in self.all(stage):
            if run.id == PUBLISHED:
                continue
            if preset is not None and not _same_preset(run, preset):
                continue
            summary = run.summary()
            if finished and not (summary.state == "completed" and run.checkpoint_steps()):
                continue
            if best is None or summary.last_at >= best[0]:
                best = (summary.last_at, run)
        return best[1] if best else None

    def lineage(self, run: Run) -> list[Run]:
        """The run and its ancestors that are still there, youngest first."""
        line, names = [run], {run.name}
        while parent := line[-1].config.parent:
            name = parent.partition("@")[0]
            if name in names:
                break
            try:
                line.append(self.find(name)[0])
            except UsageError:
                break
            names.add(name)
        return line

    def newest_pair(self) -> tuple[Run, Run] | None:
        """(general, baseball): the newest finished last stage, and the assistant in its own lineage."""
        baseball = self.newest("baseball-finetune")
        if baseball is None:
            return None
        general = next((run for run in self.lineage(baseball) if run.stage == "finetune"), None)
        return (general, baseball) if general and general.checkpoint_steps() else None

    def _with_id(self, run_id: str) -> bool:
        return any((self.folder / stage / run_id).exists() for stage in STAGES)


def step_of(name: str) -> int | None:
    """The step of the checkpoint whose folder has that name, None for any other name."""
    match = _STEP_FOLDER.match(name)
    return int(match[1]) if match else None


def _same_preset(run: Run, preset: str) -> bool:
    try:
        return run.config.preset == preset
    except UsageError:
        return False
