"""A thread that tails a run's log and posts what is new, one message per read."""

import threading
from collections.abc import Callable
from datetime import datetime

import psutil
from textual.message import Message

from core.event_log import Follower
from core.events import Event, RunStarted, event_from_line
from core.runs import Run
from tui.messages import RunEvents, RunLiveness

_READS_PER_S = 10
_AT = b'"at":"'
_AT_LENGTH = 29  # 2026-11-22T17:00:00.000+00:00


class RunFollower:
    """Follows one run until it is over and read to its end, or until told to leave.

    Args:
        post: a thread-safe function that takes messages: `App.post_message`.
        is_own: this process trains the run, so that it counts as live until `finish` is called.
    """

    def __init__(self, run: Run, post: Callable[[Message], object], is_own: bool = False) -> None:
        self.run = run
        self._post = post
        self._is_own = is_own
        self._left = threading.Event()
        self._process_id = 0
        self._thread = threading.Thread(target=self._follow, name=f"follow {run.id}", daemon=True)

    @property
    def is_following(self) -> bool:
        return self._thread.is_alive() and not self._left.is_set()

    def start(self) -> "RunFollower":
        self._thread.start()
        return self

    def finish(self) -> None:
        """The training in this process is over: read the rest, then end."""
        self._is_own = False

    def leave(self) -> None:
        """End at the next turn, whatever the run does."""
        self._left.set()

    def _follow(self) -> None:
        follower = Follower(self.run.events_file)
        turn = 0
        while not self._left.is_set():
            is_second = turn % _READS_PER_S == 0
            # Asked before the read, so that a run found over has its whole log read.
            is_live = self._is_own or not is_second or self.run.is_held()
            self._read(follower)
            if is_second and not self._left.is_set():
                self._post(self._liveness(is_live))
            if not is_live:
                return
            turn += 1
            self._left.wait(1 / _READS_PER_S)

    def _read(self, follower: Follower) -> None:
        events: list[Event] = []
        instants: list[float] = []
        for line in follower.lines():
            event = event_from_line(line)
            if event is None:
                continue
            if isinstance(event, RunStarted):
                self._process_id = event.process_id
            events.append(event)
            instants.append(_instant(line))
        if events and not self._left.is_set():
            self._post(RunEvents(self.run, events, instants))

    def _liveness(self, is_live: bool) -> RunLiveness:
        memory_bytes = disk_free_bytes = 0
        try:
            disk_free_bytes = psutil.disk_usage(str(self.run.folder)).free
            if is_live and self._process_id:
                memory_bytes = psutil.Process(self._process_id).memory_info().rss
        except (psutil.Error, OSError, ValueError):
            pass  # the process or the folder has just gone: no figures then
        return RunLiveness(self.run, is_live, memory_bytes, disk_free_bytes)


def _instant(line: bytes) -> float:
    """The line's `at` in seconds since 1970, or 0; found by its place, since parsing twice costs too much."""
    start = line.find(_AT) + len(_AT)
    try:
        return datetime.fromisoformat(line[start : start + _AT_LENGTH].decode("ascii")).timestamp()
    except (ValueError, UnicodeDecodeError):
        return 0.0
