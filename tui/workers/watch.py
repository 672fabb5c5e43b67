"""A thread that listens to every run that lives and gives word when one gives cause; see `tui.alerts`."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from core.event_log import Follower
from core.events import Event, event_from_line
from core.records import instant_of_line
from core.runs import Run
from tui.alerts import DIED, SILENT, Alert, DiskAlerts, RunAlerts
from tui.on_event import has_own_command

_EVERY_S = 1.0
_DISK_EVERY_S = 5.0
_REMEMBERED_BYTES = 1 << 18
_WAITS_FOR_START_S = 60.0
"""A run that is given before its process holds it is listened to so long."""


@dataclass(slots=True)
class _Watched:
    run: Run
    follower: Follower
    alerts: RunAlerts
    added_at: float
    is_active: bool = True
    was_live: bool = False
    is_new: bool = True
    process_id: int = 0
    tells_itself: bool = False
    """Whether that process runs a command of its user's at alerts."""


class RunWatch:
    """Tails the logs of the runs that it is given until each is over.

    What happened before the watch began is read for its facts and gives no alert.

    Args:
        give: called in the watching thread with each alert.
        since: instant of the watch's beginning, as a log writes it; now by default.
    """

    def __init__(self, root: Path, give: Callable[[Alert], object], since: str = "") -> None:
        self._root = root
        self._give = give
        self._since = since or datetime.now(UTC).isoformat(timespec="milliseconds")
        self._watched: dict[Path, _Watched] = {}
        self._disk = DiskAlerts()
        self._disk_due_at = 0.0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="watch runs", daemon=True)

    def start(self) -> "RunWatch":
        self._thread.start()
        return self

    def leave(self) -> None:
        """End at the next turn."""
        self._left.set()
        self._wake.set()

    def finish(self) -> None:
        """Read to the end what the runs have written, give word of it, and end."""
        self.leave()
        if self._thread.ident:
            self._thread.join()
        self.turn(time.monotonic())

    def watch(self, runs: Iterable[Run]) -> None:
        """Listen to these runs too; one that is listened to already goes on where it was. From any thread."""
        now = time.monotonic()
        with self._lock:
            for run in runs:
                known = self._watched.get(run.folder)
                if known is None:
                    self._watched[run.folder] = _Watched(
                        run, _tail_of(run), RunAlerts(run.short_name, now), now
                    )
                elif not known.is_active:
                    known.is_active, known.was_live, known.added_at = True, False, now
        self._wake.set()

    def _listen(self) -> None:
        while not self._left.is_set():
            # Asleep while there is nothing to listen to.
            self._wake.wait(_EVERY_S if self._active() else None)
            self._wake.clear()
            if not self._left.is_set():
                self.turn(time.monotonic())
                self._left.wait(_EVERY_S / 2)

    def _active(self) -> list[_Watched]:
        with self._lock:
            return [watched for watched in self._watched.values() if watched.is_active]

    def turn(self, now: float) -> None:
        """One look at every run, and every few seconds at the disk."""
        active = self._active()
        for watched in active:
            for alert in self._look(watched, now):
                # A process that hangs or is gone may not have had the time.
                is_told = watched.tells_itself and alert.kind not in (SILENT, DIED)
                is_own = watched.process_id == os.getpid()
                self._give(replace(alert, is_own=is_own, is_told=is_told))
        live = [watched for watched in active if watched.was_live and watched.is_active]
        if live and now >= self._disk_due_at:
            self._disk_due_at = now + _DISK_EVERY_S
            for alert in self._disk_alerts(live):
                self._give(replace(alert, is_told=any(watched.tells_itself for watched in live)))

    def _look(self, watched: _Watched, now: float) -> list[Alert]:
        try:
            return self._heard(watched, now)
        except OSError:
            return []  # the folder is gone, or cannot be read just now

    def _heard(self, watched: _Watched, now: float) -> list[Alert]:
        alerts = self._read(watched, now)
        if watched.run.is_held():
            watched.was_live = True
            return alerts + watched.alerts.tick(now)
        # Read again: it may have written its last words between the read and the question.
        alerts += self._read(watched, now)
        if watched.was_live or now - watched.added_at >= _WAITS_FOR_START_S:
            watched.is_active = False
            if watched.was_live:
                alerts += watched.alerts.gone()
        return alerts

    def _read(self, watched: _Watched, now: float) -> list[Alert]:
        earlier: list[Event] = []
        events: list[Event] = []
        for line in watched.follower.lines():
            event = event_from_line(line)
            if event:
                is_earlier = watched.is_new and instant_of_line(line) < self._since
                (earlier if is_earlier else events).append(event)
        watched.is_new = False
        watched.alerts.recall(earlier)
        alerts = watched.alerts.take(events, now)
        if watched.process_id != watched.alerts.process_id:
            watched.process_id = watched.alerts.process_id
            watched.tells_itself = has_own_command(watched.process_id)
        return alerts

    def _disk_alerts(self, live: list[_Watched]) -> list[Alert]:
        try:
            free_bytes = shutil.disk_usage(self._root).free
        except OSError:
            return []
        return self._disk.take(free_bytes, sum(watched.alerts.bytes_ahead for watched in live))


def _tail_of(run: Run) -> Follower:
    """A follower of the log from near its end; a line that the cut tears counts as bad."""
    follower = Follower(run.events_file, from_end=True)
    follower.offset = max(0, follower.offset - _REMEMBERED_BYTES)
    return follower
