"""How long a plan will take: ten seconds of training on random numbers, in a process of its own.

The process is `core.probe_bench`; whoever starts it does not wait for torch.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import core
from core.config import StageConfig
from core.errors import BbtuiError
from core.plan import Machine, Plan
from core.records import Reader, Record
from core.runs import Runs

_SAVED_BYTES_PER_S = 300e6
"""Of a checkpoint: converted, hashed, written and synced."""


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """What the process has to know of a plan."""

    config: str
    """As JSON."""
    vocabulary: int
    rows_per_step: int
    row_tokens: int
    supervised_share: float

    @classmethod
    def of(cls, plan: Plan) -> "ProbeRequest":
        return cls(
            config=plan.config.model_dump_json(),
            vocabulary=plan.vocabulary,
            rows_per_step=plan.rows_per_step or plan.micro_batch,
            row_tokens=max(2, round(plan.row_tokens)),
            supervised_share=plan.data.supervised_share if plan.data else 1.0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeEvent(Record):
    kind_key: ClassVar[str] = "probe"


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFound(ProbeEvent):
    """torch is loaded and says where the run would compute. Fields as in `Machine`."""

    device: str
    precision: str
    has_gpu: bool
    has_bfloat16: bool
    gpu_free_bytes: int

    @property
    def machine(self) -> Machine:
        return Machine(self.device, self.precision, self.has_gpu, self.has_bfloat16, self.gpu_free_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeProgressed(ProbeEvent):
    """One more piece of training was timed."""

    elapsed_s: float
    step_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PaceMeasured(ProbeEvent):
    """The result; seconds as in `Pace`."""

    step_s: float
    validation_row_s: float
    token_s: float
    memory_bytes: int
    """Most that the process held, Python and PyTorch included, or on a GPU what was allocated there; 0 where
    a whole micro-batch was too slow to be tried."""
    elapsed_s: float
    """Measured, warm-up left out."""

    @property
    def pace(self) -> "Pace":
        return Pace(self.step_s, self.validation_row_s, self.token_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFailed(ProbeEvent):
    """Nothing could be measured."""

    what: str
    fix: str


_READER = Reader(ProbeEvent)


class ProbeProcess:
    """A probe in a process of its own."""

    def __init__(self, plan: Plan) -> None:
        self._request = ProbeRequest.of(plan)
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopped = False

    def events(self) -> Iterator[ProbeEvent]:
        """What the process tells; the last one is a pace or a failure, unless it is stopped before."""
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "core.probe_bench"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # Where the user stands there may be a package `core`, too.
                cwd=Path(core.__file__).parent.parent,
            )
        except OSError as error:
            yield ProbeFailed(what=f"No process could be started: {error.strerror or error}.", fix="")
            return
        with self._process as process:
            try:
                yield from self._told_by(process)
            finally:
                process.kill()
                # What it has not read would be flushed, to nobody.
                with contextlib.suppress(OSError):
                    if process.stdin:
                        process.stdin.close()

    def _told_by(self, process: "subprocess.Popen[bytes]") -> Iterator[ProbeEvent]:
        assert process.stdin and process.stdout
        # It may die before it has read this; then it tells nothing.
        with contextlib.suppress(OSError):
            process.stdin.write(json.dumps(asdict(self._request)).encode() + b"\n")
            process.stdin.flush()
        for line in process.stdout:
            if self._is_stopped:
                return
            if event := _READER.from_line(line):
                yield event
                if isinstance(event, (PaceMeasured, ProbeFailed)):
                    return
        if not self._is_stopped:
            yield ProbeFailed(
                what="The measuring process ended without a result, as it does where memory runs out.",
                fix="Lower batch.micro_batch.",
            )

    def stop(self) -> None:
        """End the process at once; called from another thread than the one that takes the events."""
        self._is_stopped = True
        if self._process:
            self._process.kill()


# ---------------------------------------------------------------- from pace to time


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a run goes, from a probe or from an earlier run."""

    step_s: float
    """An optimizer step: all of its micro-batches, and the update."""
    validation_row_s: float = 0.0
    token_s: float = 0.0
    """A token of a sample."""
    of_run: str = ""
    """The earlier run that it was seen in; empty where it was measured."""


def estimated_s(plan: Plan, pace: Pace) -> float | None:
    """What the run will take at that pace; None where its steps are not known yet.

    Its steps, its validations with their questions, its samples and its checkpoints; not the preparation of its data.
    """
    if plan.steps is None:
        return None
    samples = plan.config.samples
    # A question is a row like any other.
    validation_s = ((plan.validation_rows or 0) + plan.num_questions) * pace.validation_row_s
    sample_s = len(samples.prompts) * samples.max_tokens * pace.token_s
    save_s = plan.checkpoint_bytes / _SAVED_BYTES_PER_S
    return (
        plan.steps * pace.step_s
        + plan.num_validations * validation_s
        + plan.num_samples * sample_s
        + plan.num_saves * save_s
    )


def busy_words(store: Runs) -> str:
    """Why nothing is measured now: some process trains a run. Empty where none does."""
    busy = next((run for run in reversed(store.all()) if run.is_held()), None)
    if busy is None:
        return ""
    return f"{busy.name} is being trained: both would share the cores, and nothing is measured beside it."


def last_pace(store: Runs, plan: Plan) -> Pace | None:
    """The pace of the newest run of the same stage, sizes, batch and device; None where there is none."""
    for run in reversed(store.all(plan.config.stage)):
        try:
            theirs = run.config
        except BbtuiError:
            continue
        if _is_alike(theirs, plan.config):
            tokens_per_s = run.summary().tokens_per_s
            if tokens_per_s and plan.tokens_per_step:
                return Pace(plan.tokens_per_step / tokens_per_s, of_run=run.name)
    return None


def _is_alike(one: StageConfig, other: StageConfig) -> bool:
    def what_counts(config: StageConfig) -> tuple[object, ...]:
        optim = config.optim
        return config.model, config.batch, config.device, config.precision, config.compile, optim.matrices

    return what_counts(one) == what_counts(other)
