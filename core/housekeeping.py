"""Keeping house among the runs: what they take on the disk, what a removal does and does not, notes on a run.

A removal renames first and deletes then, so that a process killed in between leaves a whole run, or leftovers
that are no run any more and that `sweep` deletes. Links are never followed.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from core.commands import LONGEST_NOTE, AddNote
from core.config import STAGES
from core.errors import BbtuiError, RetryLaterError, RunBusyError, UsageError
from core.events import NoteAdded
from core.runs import Run, Runs, data_folder, step_of
from core.stage_queue import QueueFile

Keep = Literal["nothing", "best", "last", "log"]
"""What stays of a run: nothing, the best and the last checkpoint, the last one, or everything but its weights."""
KEEPS: tuple[Keep, ...] = get_args(Keep)

_DOOMED = ".removing-"
_NOT_FINISHED = (".saving-", _DOOMED)
_SET_ASIDE = "damaged-"
_LOGS = ("events.jsonl", "commands.jsonl", "stderr.log")
_LONGEST_STATE_BYTES = 4 << 20


# ---------------------------------------------------------------- sizes


@dataclass(frozen=True, slots=True)
class RunBytes:
    """What a run takes on the disk, by part."""

    checkpoints: dict[int, int]
    """By step."""
    logs: int
    other: int
    """Configuration and vocabulary, what was set aside as damaged, what a kill has left half done."""

    @property
    def total(self) -> int:
        return sum(self.checkpoints.values()) + self.logs + self.other


@dataclass(frozen=True, slots=True)
class DataBytes:
    """A folder of prepared data."""

    name: str
    bytes_used: int
    is_used: bool
    """Whether a run's newest checkpoint names it; true of all while a live run has none that could."""


def bytes_of(run: Run) -> RunBytes:
    """The sizes of a run's parts; a part that goes away meanwhile counts as nothing."""
    checkpoints: dict[int, int] = {}
    logs = other = 0
    for entry in _entries(run.folder):
        size, step = bytes_at(entry), step_of(entry.name)
        if step is not None:
            checkpoints[step] = size
        elif entry.name in _LOGS:
            logs += size
        else:
            other += size
    return RunBytes(dict(sorted(checkpoints.items())), logs, other)


def bytes_at(entry: "os.DirEntry[str] | Path") -> int:
    """The size of a file, or of all files under a folder. A link counts as nothing."""
    try:
        if entry.is_symlink():
            return 0
        if entry.is_dir():
            return sum(map(bytes_at, _entries(entry)))
        return entry.stat().st_size
    except OSError:
        return 0


def prepared_data(store: Runs) -> list[DataBytes]:
    """The folders of prepared data, by name, and whether any run still learns from each."""
    used: set[str] = set()
    is_certain = True
    for run in store.all():
        if name := _data_of(run):
            used.add(name)
        elif run.is_held():
            is_certain = False
    folders = sorted((entry for entry in _entries(data_folder(store.root)) if _is_folder(entry)), key=_name)
    return [
        DataBytes(folder.name, bytes_at(folder), folder.name in used or not is_certain) for folder in folders
    ]


def _data_of(run: Run) -> str:
    """The folder of prepared data that the run's newest checkpoint names, or an empty text."""
    for step in reversed(run.checkpoint_steps()):
        path = run.checkpoint_folder(step) / "state.json"
        try:
            if path.stat().st_size <= _LONGEST_STATE_BYTES:
                return str(json.loads(path.read_text(encoding="utf-8"))["data"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return ""


def _entries(folder: "os.DirEntry[str] | Path") -> "list[os.DirEntry[str]]":
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _name(entry: "os.DirEntry[str]") -> str:
    return entry.name


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    return entry.is_dir(follow_symlinks=False)


# ---------------------------------------------------------------- removing


@dataclass(frozen=True, slots=True)
class Removal:
    """What a removal takes away, and what follows from that."""

    run: Run
    keep: Keep
    steps: tuple[int, ...]
    """Of all checkpoints now."""
    steps_kept: tuple[int, ...]
    bytes_freed: int
    consequences: tuple[str, ...]
    """A sentence each."""
    needed_by: tuple[str, ...]
    """Runs that could not begin without what would go; while there are any, it is refused."""

    @property
    def steps_gone(self) -> tuple[int, ...]:
        return tuple(step for step in self.steps if step not in self.steps_kept)


def word_of(run: Run) -> str:
    """What has to be typed before the run is removed: the four characters that end its id."""
    tail = run.id[-4:]
    return tail if tail.isascii() and tail.isalnum() else "remove"


def check_keep(name: str) -> Keep:
    """The policy of that name. Raises: UsageError where there is none."""
    for keep in KEEPS:
        if keep == name:
            return keep
    raise UsageError(f"There is no keep policy {name[:40]!r}.", f"Policies: {', '.join(KEEPS)}.")


def removal_of(store: Runs, run: Run, keep: Keep) -> Removal:
    """What `remove` would do. Changes nothing."""
    sizes = bytes_of(run)
    steps = tuple(run.checkpoint_steps())
    kept = _steps_kept(run, steps, keep)
    if keep == "nothing":
        freed = sizes.total
    else:
        freed = sum(size for step, size in sizes.checkpoints.items() if step not in kept)
        freed += sum(map(bytes_at, _leftovers(run)))
    children = _children(store, run)
    # A run that has a checkpoint of its own holds everything that it goes on with.
    needing = [name for name, step, has_own in children if not has_own and step not in kept]
    return Removal(
        run=run,
        keep=keep,
        steps=steps,
        steps_kept=kept,
        bytes_freed=freed,
        consequences=tuple(_consequences(store, run, keep, kept, [name for name, *_ in children])),
        needed_by=tuple(needing),
    )


def remove(store: Runs, run: Run, keep: Keep) -> Removal:
    """Take the run away, or of its checkpoints all that are not kept; returns what has gone.

    Raises: RunBusyError for a run that is being trained; UsageError where another run needs it, or where its folder
    is not really under the root; CheckpointError where what shall stay is damaged; RetryLaterError.
    """
    _check_place(store, run)
    sweep(store)
    plan = removal_of(store, run, keep)
    check_allowed(plan)
    _check_whole(run, plan.steps_kept)
    with run.held():
        if tuple(run.checkpoint_steps()) != plan.steps:
            raise RunBusyError(f"{run.name} has changed meanwhile; nothing was removed.", "Look again.")
        doomed = list(_doom(run, plan))
    # The lock is free by now: it says that the run is trained, and this may take a while.
    for path in doomed:
        _delete(path)
    if left := next((path for path in doomed if os.path.lexists(path)), None):
        raise RetryLaterError(
            f"{run.name}: not all of its files could be deleted.",
            f"What is left stands under {left}; the next removal tries again.",
        )
    return plan


def check_allowed(plan: Removal) -> None:
    """Raises: RunBusyError for a run that is being trained; UsageError where another run needs what would go."""
    run = plan.run
    if run.is_held():
        raise RunBusyError(f"{run.name} is being trained; nothing was removed.", "Stop it first.")
    if plan.needed_by:
        raise UsageError(
            f"{run.name} is needed: {_listed(plan.needed_by)} starts from it and has no checkpoint yet.",
            "Let that run come to its first checkpoint, or remove it first.",
        )


def sweep(store: Runs) -> None:
    """Delete what removals that were cut off have left."""
    for stage in STAGES:
        folder = store.folder / stage
        if folder.is_dir() and _is_home(store, folder):
            for entry in _entries(folder):
                if entry.name.startswith(_DOOMED):
                    _delete(Path(entry))
    for run in store.all():
        for entry in _entries(run.folder) if _is_home(store, run.folder) else ():
            if entry.name.startswith(_DOOMED):
                _delete(Path(entry))


def _steps_kept(run: Run, steps: tuple[int, ...], keep: Keep) -> tuple[int, ...]:
    if keep in ("nothing", "log") or not steps:
        return ()
    if keep == "last":
        return steps[-1:]
    # Imported here: whoever only looks at sizes does not wait for torch.
    from core.checkpoint import best_step

    return tuple(sorted({steps[-1], best_step(run) or steps[-1]}))


def _doom(run: Run, plan: Removal) -> Iterator[Path]:
    """Rename what shall go, so that nobody takes it for a run or a checkpoint any more."""
    going = [run.folder]
    if plan.keep != "nothing":
        going = [*map(run.checkpoint_folder, plan.steps_gone), *_leftovers(run)]
    for path in going:
        if path.name.startswith(_DOOMED):
            continue
        doomed = path.with_name(f"{_DOOMED}{path.name}")
        try:
            path.rename(doomed)
        except OSError as error:
            raise RetryLaterError(
                f"Cannot remove {path.name} of {run.name}: {error.strerror}.",
                f"See who may write {path.parent}.",
            ) from None
        yield doomed


def _leftovers(run: Run) -> list[Path]:
    """Checkpoints set aside as damaged, and what a save or a removal that was cut off has left."""
    prefixes = (_SET_ASIDE, *_NOT_FINISHED)
    return [Path(entry) for entry in _entries(run.folder) if entry.name.startswith(prefixes)]


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _check_place(store: Runs, run: Run) -> None:
    is_listed = run.folder.parent.parent == store.folder and run.folder.parent.name in STAGES
    if not is_listed or run.folder.name.startswith(".") or not _is_home(store, run.folder):
        raise UsageError(
            f"{run.name} does not lie under {store.folder} itself: a link leads to it.",
            "Remove it by hand where it lies.",
        )


def _is_home(store: Runs, folder: Path) -> bool:
    """Whether a folder of runs is where its path says, and not elsewhere by a link."""
    return folder.resolve() == store.folder.resolve() / folder.relative_to(store.folder)


def _check_whole(run: Run, steps: tuple[int, ...]) -> None:
    """The others may be the only good ones: nothing goes while one that shall stay is damaged."""
    if steps:
        from core.checkpoint import verify

        for step in steps:
            verify(run.checkpoint_folder(step))


# ---------------------------------------------------------------- what depends on a run


def _children(store: Runs, run: Run) -> list[tuple[str, int, bool]]:
    """Each run that started from this one: its name, the step, whether it has a checkpoint of its own."""
    children: list[tuple[str, int, bool]] = []
    for other in store.all():
        try:
            parent, _, step = other.config.parent.partition("@")
        except BbtuiError:
            continue
        if parent == run.name:
            children.append(
                (other.name, int(step) if step.isdecimal() else -1, bool(other.checkpoint_steps()))
            )
    return children


def _consequences(
    store: Runs, run: Run, keep: Keep, kept: tuple[int, ...], children: list[str]
) -> Iterator[str]:
    if keep == "nothing" and children:
        yield f"Started from it: {_listed(children)}. Their checkpoints stay whole; their lineage ends there."
    if kept or (keep != "nothing" and not run.checkpoint_steps()):
        return
    if keep == "log":
        yield "No stage, chat or eval can use it any more; its curve, settings and notes stay."
    if run.summary().state not in ("completed", "new"):
        yield "It is unfinished, and could not be resumed where it stopped."
    if _queue_goes_on_from(store, run):
        then = "would train that stage anew" if keep == "nothing" else "could not"
        yield f"The queue goes on from it, and {then}."
    if pair := store.newest_pair():
        line = store.lineage(pair[1])
        needed = line[: line.index(pair[0]) + 1] if keep == "nothing" else list(pair)
        if run in needed:
            yield "Chat and Eval use it now; they will take an older pair, or have none."


def _queue_goes_on_from(store: Runs, run: Run) -> bool:
    try:
        standing = QueueFile(store).standing()
    except BbtuiError:
        return False
    following = standing.next if standing else None
    return following is not None and run.name in (following.run, following.parent)


def _listed(names: "tuple[str, ...] | list[str]") -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


# ---------------------------------------------------------------- notes


def add_note(run: Run, text: str) -> bool:
    """Write something down about where the run is; whether that was left to the process that trains it.

    Raises: UsageError for an empty note; RetryLaterError.
    """
    text = " ".join(text.split())[:LONGEST_NOTE]
    if not text:
        raise UsageError("The note is empty.", "Write what you see, or did.")
    # Of a run that has not begun, whoever trains it reads the commands that are there already.
    if run.events_file.is_file() and not run.is_held():
        try:
            with run.held():
                _write_note(run, text)
            return False
        except RunBusyError:
            pass  # somebody has just begun to train it
    run.tell(AddNote(text=text))
    return True


def _write_note(run: Run, text: str) -> None:
    """At the step that would come next, where a resume finds it and makes it again; else at the last one."""
    run.mend_log()
    summary = run.summary()
    step = min(summary.step + 1, summary.steps or summary.step + 1)
    run.append(NoteAdded(step=step, tokens=summary.tokens, text=text))
