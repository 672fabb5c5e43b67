"""A thread that reads a run's log, hands over what it tells, then posts what is new, one message per read."""

import gc
import importlib
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache

import psutil
from textual.message import Message

from core.event_log import Follower
from core.events import RunStarted
from core.log_columns import Columns, Logged
from core.runs import Run
from tui.messages import ReplayOver, RunEvents, RunLiveness, RunRead
from tui.run_state import RunState
from tui.workers.replay import Replay

_READS_PER_S = 10
_READS_BEFORE_YIELDING = 16


class RunFollower:
    """Follows one run until it is over and read to its end, or until told to leave.

    Args:
        post: a thread-safe function that takes messages: `App.post_message`.
        is_own: this process trains the run, so that it counts as live until `finish` is called.
        replay: tell what there is again in its own time, and nothing after it.
    """

    def __init__(
        self,
        run: Run,
        post: Callable[[Message], object],
        is_own: bool = False,
        replay: Replay | None = None,
    ) -> None:
        self.run = run
        self._post = post
        self._is_own = is_own
        self.replay = replay
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
        if self.replay:
            self._tell_again(follower, self.replay)
            return
        is_live = self._is_own or self.run.is_held()
        self._read_history(follower)
        turn = 0
        while not self._left.is_set():
            is_second = turn % _READS_PER_S == 0
            if turn:
                # Asked before the read, so that a run found over has its whole log read.
                is_live = self._is_own or not is_second or self.run.is_held()
                self._read(follower)
            if is_second and not self._left.is_set():
                self._post(self._liveness(is_live))
            if not is_live:
                return
            turn += 1
            self._left.wait(1 / _READS_PER_S)

    def _read_history(self, follower: Follower) -> None:
        """Read what is there already, and hand it over whole: a screen need not be told a long story piece by piece."""
        state = RunState(self.run)
        for found in self._found(follower):
            state.take(found)
        load_what_draws()
        if not self._left.is_set():
            self._post(RunRead(state, self))

    def _tell_again(self, follower: Follower, replay: Replay) -> None:
        state = RunState(self.run)
        state.is_known = True
        self._post(RunRead(state, self))
        for portion, wait_s in replay.portions(self._found(follower)):
            if self._left.is_set():
                return
            self._post(RunEvents(self.run, portion, self))
            self._left.wait(wait_s)
            while replay.is_held and not self._left.is_set():
                self._left.wait(1 / _READS_PER_S)
        self._post(ReplayOver(self))

    def _read(self, follower: Follower) -> None:
        found = list(self._found(follower))
        if found and not self._left.is_set():
            self._post(RunEvents(self.run, found, self))

    def _found(self, follower: Follower) -> Iterator[Columns | Logged]:
        for count, found in enumerate(follower.read()):
            if isinstance(found, Logged) and isinstance(found.event, RunStarted):
                self._process_id = found.event.process_id
            yield found
            if self._left.is_set():
                return
            if count % _READS_BEFORE_YIELDING == 0:
                time.sleep(0)  # lets the screen's thread go on

    def _liveness(self, is_live: bool) -> RunLiveness:
        memory_bytes = disk_free_bytes = 0
        try:
            disk_free_bytes = psutil.disk_usage(str(self.run.folder)).free
            if is_live and self._process_id:
                memory_bytes = psutil.Process(self._process_id).memory_info().rss
        except (psutil.Error, OSError, ValueError):
            pass  # the process or the folder has just gone: no figures then
        return RunLiveness(self.run, is_live, memory_bytes, disk_free_bytes)


@cache
def load_what_draws() -> None:
    """Import what the first curve would wait for on the screen's thread.

    Then every object that stands is taken out of the cyclic collector's sight: it stays for good anyway, and a
    collection that walks it holds the screen's thread for 60 ms, again and again while the chart is redrawn.
    """
    for name in ("numpy", "textual_plotext"):
        importlib.import_module(name)
    gc.freeze()
