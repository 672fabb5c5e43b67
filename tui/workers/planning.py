"""A thread that works out a plan, then has the machine's pace measured by a process of its own."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from textual.message import Message

from core.errors import BbtuiError
from core.plan import Plan, plan_of
from core.probe import (
    MachineFound,
    Pace,
    PaceMeasured,
    ProbeFailed,
    ProbeProcess,
    ProbeProgressed,
    busy_words,
    last_pace,
)
from core.runs import Runs, data_folder
from tui.workers.failures import in_words


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """The run that would be started."""

    stage: str
    preset: str
    from_run: str | None = None
    overrides: tuple[str, ...] = ()


class PlanMade(Message):
    """The plan, first without and then with what is known of the machine."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan


class PlanFailed(Message):
    """There is no such run to plan."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__()
        self.what = what
        self.fix = fix


class PaceTried(Message):
    """Measuring goes on: so many seconds a step, up to now; 0 before the first one."""

    def __init__(self, step_s: float) -> None:
        super().__init__()
        self.step_s = step_s


class PaceKnown(Message):
    """Measuring is over. `pace` is None, or an earlier run's, where `notice` says why nothing was measured."""

    def __init__(self, pace: Pace | None, memory_bytes: int = 0, notice: str = "") -> None:
        super().__init__()
        self.pace = pace
        self.memory_bytes = memory_bytes
        self.notice = notice


class Planner:
    """Works on one request until it is done or told to leave.

    Args:
        post: a thread-safe function that takes messages: a screen's `post_message`.
    """

    def __init__(self, store: Runs, request: PlanRequest, post: Callable[[Message], object]) -> None:
        self._store = store
        self._request = request
        self._post = post
        self._left = threading.Event()
        self._process: ProbeProcess | None = None
        self._thread = threading.Thread(target=self._work, name="plan", daemon=True)

    def start(self) -> "Planner":
        self._thread.start()
        return self

    def leave(self) -> None:
        """End at once, the process too; nothing is posted any more."""
        self._left.set()
        if self._process:
            self._process.stop()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; whether it came."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _tell(self, message: Message) -> None:
        if not self._left.is_set():
            self._post(message)

    def _work(self) -> None:
        request = self._request
        try:
            plan = plan_of(
                self._store, request.preset, request.stage, request.from_run, list(request.overrides)
            )
            self._tell(PlanMade(plan))
            self._measure(plan)
        except BbtuiError as error:
            self._tell(PlanFailed(error.what, error.fix))
        except Exception as error:
            self._tell(PlanFailed(*in_words(error, data_folder(self._store.root))))

    def _measure(self, plan: Plan) -> None:
        if notice := busy_words(self._store):
            self._tell(PaceKnown(last_pace(self._store, plan), notice=notice))
            return
        self._process = ProbeProcess(plan)
        if self._left.is_set():
            return
        self._tell(PaceTried(0.0))
        for event in self._process.events():
            match event:
                case MachineFound():
                    self._tell(PlanMade(plan.on(event.machine)))
                case ProbeProgressed():
                    self._tell(PaceTried(event.step_s))
                case PaceMeasured():
                    self._tell(PaceKnown(event.pace, event.memory_bytes))
                case ProbeFailed():
                    notice = f"{event.what} {event.fix}".strip()
                    self._tell(PaceKnown(last_pace(self._store, plan), notice=notice))
                case _:
                    pass
