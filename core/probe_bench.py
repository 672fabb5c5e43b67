"""The inside of a probe: a model with random weights trains on random numbers, piece by piece against the clock.

`python -m core.probe_bench` reads a `ProbeRequest` from its first line of input and prints a JSON line per event. It
ends when its input does, so that it never outlives whoever asked.
"""

import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict

import torch
from torch import Tensor

from core import device
from core.config import StageConfig
from core.data.batches import IGNORED, Batch
from core.errors import BbtuiError
from core.model import build
from core.optim import make_optimizer
from core.plan import Machine
from core.probe import MachineFound, PaceMeasured, ProbeEvent, ProbeFailed, ProbeProgressed, ProbeRequest
from core.workbench import loss_sum

LONGEST_S = 10.0
"""What is measured, warm-up left out."""
_GIVE_UP_S = 120.0
_SHORTEST_S = 2.0
_STEADY_STEPS = 5
_STEADY_SHARE = 0.04
_DRAWN_TOKENS = 8
_WARM_UP_ROWS = 4


def machine_of(config: StageConfig) -> Machine:
    """Where a run of this configuration would compute. Raises: UsageError for a device that is not there."""
    placement = device.of(config)
    gpu_free_bytes = 0
    if placement.device.type == "cuda":
        gpu_free_bytes = torch.cuda.mem_get_info(placement.device)[0]
    return Machine(
        device=placement.device.type,
        precision=placement.precision,
        has_gpu=torch.cuda.is_available() or torch.backends.mps.is_available(),
        has_bfloat16=placement.device.type == "mps" or device.gains_from_bfloat16(placement.device.type),
        gpu_free_bytes=gpu_free_bytes,
    )


def probe(
    request: ProbeRequest, should_stop: Callable[[], bool], longest_s: float = LONGEST_S
) -> Iterator[ProbeEvent]:
    """Train on random numbers with random weights for at most `longest_s`, less once the pace is steady.

    Nothing is written. It ends without a result where it is told to stop.
    Raises: UsageError for a device that is not there, or where memory does not suffice.
    """
    config = StageConfig.model_validate_json(request.config)
    machine = machine_of(config)
    yield MachineFound(**asdict(machine))
    if should_stop():
        return
    bench = Bench(request, config)
    rows = bench.warm_up(longest_s)
    started_s = time.monotonic()
    step_s: list[float] = []
    while not should_stop():
        step_s.append(bench.slow_step() if bench.is_slow else bench.step(rows))
        elapsed_s = time.monotonic() - started_s
        yield ProbeProgressed(elapsed_s=elapsed_s, step_s=_mean(step_s))
        # A seventh for what is timed afterwards.
        is_time = elapsed_s * (1 + 1 / len(step_s)) > longest_s * 6 / 7
        if bench.is_slow or is_time or _is_steady(step_s, elapsed_s):
            break
    if should_stop():
        return
    is_whole = rows == bench.micro_batch and not bench.is_slow
    yield PaceMeasured(
        step_s=_mean(step_s),
        validation_row_s=bench.validation_row_s(rows),
        token_s=bench.token_s(),
        memory_bytes=bench.placement.peak_memory_bytes() if is_whole else 0,
        elapsed_s=time.monotonic() - started_s,
    )


class Bench:
    """A model, its optimizer, and the pieces of a step that are timed."""

    def __init__(self, request: ProbeRequest, config: StageConfig) -> None:
        assert config.model
        self._request = request
        self._config = config
        self.placement = device.of(config)
        self.model = build(config.model, request.vocabulary)
        self.model.initialise(config.seed)
        self.model.to(self.placement.device)
        self._optimizer = make_optimizer(self.model, config.optim)
        if config.compile:
            for block in self.model.blocks:
                block.compile()
        self._draw = torch.Generator().manual_seed(config.seed)
        self.micro_batch = min(config.batch.micro_batch, request.rows_per_step)
        self._row_s = math.inf
        self.is_slow = False
        """Whether a single row takes so long that the warm-up is all that is tried."""

    def warm_up(self, longest_s: float) -> int:
        """How many rows to compute at once: a micro-batch, or fewer where that would take too long."""
        if self._config.compile:
            self._accumulate(self.micro_batch)
        for done in range(_WARM_UP_ROWS):
            started_s = time.monotonic()
            self._accumulate(1)
            self._row_s = min(self._row_s, time.monotonic() - started_s)
            # The first one waits for memory, and for kernels to be chosen.
            if self._row_s * (_WARM_UP_ROWS if done else 1) > longest_s:
                self.is_slow = True
                return 1
        rows = min(self.micro_batch, max(1, int(longest_s / 3 / self._row_s)))
        self.step(rows)
        return rows

    def slow_step(self) -> float:
        """As `step`, by the row of the warm-up; its gradient is used for the update."""
        started_s = time.monotonic()
        self._update()
        return self._row_s * self._request.rows_per_step + time.monotonic() - started_s

    def step(self, rows: int) -> float:
        """Seconds that an optimizer step would take, from up to two of its micro-batches and its update."""
        num_parts = -(-self._request.rows_per_step // rows)
        started_s = time.monotonic()
        # The second one is computed with a gradient there already, as most are.
        for _ in range(timed := min(2, num_parts)):
            self._accumulate(rows)
        part_s = (time.monotonic() - started_s) / timed
        started_s = time.monotonic()
        self._update()
        return part_s / rows * self._request.rows_per_step + time.monotonic() - started_s

    def validation_row_s(self, rows: int) -> float:
        """Seconds of a row without a gradient."""
        if self.is_slow:
            return self._row_s / 3  # the backward pass takes twice the forward one
        self.model.eval()
        batch = self._batch(rows)
        started_s = time.monotonic()
        with torch.no_grad(), self.placement.autocast():
            float(self._loss_sum(batch))
        return (time.monotonic() - started_s) / rows

    def token_s(self) -> float:
        """Seconds of a drawn token."""
        cache = self.model.new_cache()
        one = torch.zeros(1, 1, dtype=torch.long, device=self.placement.device)
        started_s = time.monotonic()
        with torch.no_grad():
            for _ in range(drawn := 1 if self.is_slow else _DRAWN_TOKENS):
                self.model(one, cache)
        self.placement.synchronise()
        return (time.monotonic() - started_s) / drawn

    def _accumulate(self, rows: int) -> None:
        self.model.train()
        batch = self._batch(rows)
        with self.placement.autocast():
            part = self._loss_sum(batch) / batch.supervised
        part.backward()
        self.placement.synchronise()

    def _update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._config.optim.clip_norm or float("inf"))
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.placement.synchronise()

    def _loss_sum(self, batch: Batch) -> Tensor:
        return loss_sum(self.model, batch, self.placement.device)

    def _batch(self, rows: int) -> Batch:
        """Random ids; the last tokens of each row are the learned ones, as those of an answer."""
        width = min(self._request.row_tokens, self.model.config.context)
        ids = torch.randint(0, self._request.vocabulary, (rows, width + 1), generator=self._draw)
        learned = max(1, round(width * self._request.supervised_share))
        targets = ids[:, 1:].clone()
        targets[:, : width - learned] = IGNORED
        return Batch(inputs=ids[:, :-1], targets=targets, supervised=rows * learned, fed=rows * width)


def _is_steady(step_s: list[float], elapsed_s: float) -> bool:
    """Whether the pace has settled: the last timings lie within a few percent of each other."""
    last = step_s[-_STEADY_STEPS:]
    is_enough = elapsed_s >= _SHORTEST_S and len(last) == _STEADY_STEPS
    return is_enough and max(last) - min(last) <= _STEADY_SHARE * min(last)


def _mean(values: list[float]) -> float:
    # What disturbs a step now will disturb the run's steps too, so that the mean foretells more than the median.
    return sum(values) / len(values)


def main() -> None:
    """Answer the request on standard input."""
    lock, left = threading.Lock(), threading.Event()

    def tell(event: ProbeEvent) -> None:
        with lock:
            print(event.to_line(), flush=True)

    def leave_with_input() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    def give_up() -> None:
        tell(ProbeFailed(what=f"Nothing was measured within {_GIVE_UP_S:.0f} s.", fix=""))
        os._exit(0)

    request = ProbeRequest(**json.loads(sys.stdin.buffer.readline()))
    threading.Thread(target=leave_with_input, daemon=True).start()
    timer = threading.Timer(_GIVE_UP_S, give_up)
    timer.daemon = True
    timer.start()
    try:
        for event in probe(request, left.is_set):
            tell(event)
    except BbtuiError as error:
        tell(ProbeFailed(what=error.what, fix=error.fix))
    except RuntimeError as error:
        words = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        tell(ProbeFailed(what=f"PyTorch refused: {words}", fix="Lower batch.micro_batch if memory ran out."))
    # Threads that wait on input would keep the interpreter from its end.
    os._exit(0)


if __name__ == "__main__":
    main()
