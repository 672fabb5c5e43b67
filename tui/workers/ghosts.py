"""Reads, off the UI thread, the validation losses of what may be drawn behind a run."""

import re
from dataclasses import dataclass

from core.errors import BbtuiError
from core.event_log import Follower
from core.events import event_from_line
from core.published import published_curve
from core.runs import PUBLISHED, Run, Runs
from core.series import RunSeries, Series
from tui.shown import Ghost

_MARKERS = ("○", "△", "□")
_PARENT_MARKER, _PUBLISHED_MARKER = "◇", "×"
_LINE = re.compile(rb'^\{"event":"(?:Validated|RunStarted)".*$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class GhostChoice:
    """Something to draw behind a run, by the name that the notice says."""

    name: str
    ghosts: tuple[Ghost, ...]


def ghosts_for(store: Runs, run: Run) -> list[GhostChoice]:
    """What there is to draw behind this run: the newest other runs of its stage, its parent, the published one."""
    choices = [
        GhostChoice("the runs before", _others(store, run)),
        GhostChoice("the parent", _parent(store, run)),
        GhostChoice("the published experiment", _published(run)),
    ]
    return [choice for choice in choices if choice.ghosts]


def _others(store: Runs, run: Run) -> tuple[Ghost, ...]:
    others = [other for other in store.all(run.stage) if other != run and other.id != PUBLISHED]
    others.sort(key=lambda other: other.summary().started_at, reverse=True)
    ghosts = []
    for other in others:
        losses = validation_of(other)
        if losses.values:
            ghosts.append(Ghost(other.short_name, _MARKERS[len(ghosts)], losses))
        if len(ghosts) == len(_MARKERS):
            break
    return tuple(ghosts)


def _parent(store: Runs, run: Run) -> tuple[Ghost, ...]:
    try:
        parent = store.find(run.config.parent.partition("@")[0])[0] if run.config.parent else None
    except BbtuiError:
        return ()
    losses = validation_of(parent) if parent else Series()
    return (Ghost(f"parent {parent.short_name}", _PARENT_MARKER, losses),) if parent and losses.values else ()


def _published(run: Run) -> tuple[Ghost, ...]:
    losses = published_curve(run.stage) if run.id != PUBLISHED else None
    return (Ghost("published experiment", _PUBLISHED_MARKER, losses),) if losses else ()


def validation_of(run: Run) -> Series:
    """The validation losses that hold; only their lines of the log are looked into."""
    series = RunSeries()
    try:
        for block in Follower(run.events_file).blocks():
            for line in _LINE.findall(block):
                if event := event_from_line(line):
                    series.feed(event)
    except OSError:
        pass  # a ghost of a log that cannot be read is none
    return series.validation
