"""The only training loop: four stages, one iterator of events."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator

import torch

from core import device, generate
from core.commands import Command, Pause, Resume, SampleNow, SaveNow, Stop
from core.config import StageConfig
from core.distributed import Orders, World
from core.errors import BbtuiError, RetryLaterError, RunFailedError
from core.evals.live import ask
from core.event_log import Follower
from core.events import (
    Event,
    NonFiniteMet,
    RunContinued,
    RunEnded,
    RunPaused,
    TrainMeasured,
    Validated,
    Warned,
)
from core.heartbeat import Heart
from core.optim import set_rate
from core.runs import Run
from core.workbench import Workbench

_PAUSE_LOOK_S = 0.05
_NON_FINITE_IN_A_ROW = 3


def train(
    config: StageConfig,
    run: Run,
    commands: Callable[[], list[Command]] | None = None,
    world: World = World(),
) -> Iterator[Event]:
    """Everything that happens while the stage trains, each event written to the run's log before it is yielded.

    A run folder with checkpoints is gone on with, exactly, from the newest good one.

    Args:
        commands: gives the commands that are new at each call; by default those appended to the run's file.
        world: the processes that train the run together. Each yields the events; the first alone writes.
    Raises: RunBusyError where another process trains the run; BbtuiError kinds, after a RunEnded that says failed.
    """
    with run.held() if world.is_first else contextlib.nullcontext():
        # Commands left from an earlier process were meant for it; a fresh run may have been told something already.
        is_fresh = not run.events_file.exists()
        if world.is_first:
            run.mend_log()
        read = commands or Follower(run.commands_file, from_end=not is_fresh).commands
        trainer = _Trainer(config, run, Orders(world, read), world)
        keep = run.append if world.is_first else (lambda _event: None)
        try:
            for event in trainer.events():
                keep(event)
                yield event
        except Exception as error:
            for event in trainer.failed(error):
                keep(event)
                yield event
            raise


class _Trainer:
    """One process's work on one run. The methods that yield events are the loop, cut into sentences."""

    def __init__(self, config: StageConfig, run: Run, orders: Orders, world: World) -> None:
        self.work = Workbench(config, run, world.gpu)
        self._orders = orders
        self._world = world
        self._waiting: list[Command] = []
        self._started_at = time.monotonic()
        self._paused_s = 0.0
        self._pausing_since: float | None = None
        self._stop: Stop | None = None
        self._micro_batch = config.batch.micro_batch
        self._non_finite = 0
        self._updated_step = 0
        """The last step whose update is whole in the weights."""
        self._heart = Heart()

    def events(self) -> Iterator[Event]:
        yield from self._prepare()
        if not self._stop:
            yield from self._measure_if_due()
        while self.work.state.step < self.work.steps and not self._stop:
            yield from self._step()
            if not self._stop:
                yield from self._measure_if_due()
        # That another process has died must not pass for an end.
        self._world.total(0)
        if not self._stop:
            yield self.ended("completed")
            return
        if self._stop.save and self.work.state.step and self.work.saved_step != self.work.state.step:
            yield from self._save()
        yield self.ended(self._stop.reason)

    def failed(self, error: Exception) -> Iterator[Event]:
        """Save, after an error, what was learned up to the last step, if its update is whole; and end."""
        step = self.work.state.step
        if self._world.is_first and step and step == self._updated_step and self.work.saved_step != step:
            # The error that is already on its way says more than one of this attempt would.
            with contextlib.suppress(Exception):
                yield self.work.save()
        name = "" if isinstance(error, BbtuiError) else f"{type(error).__name__}: "
        yield self.ended("failed", f"{name}{error}"[:500])

    def ended(self, reason: str, message: str = "") -> RunEnded:
        elapsed_s = time.monotonic() - self._started_at
        return RunEnded(step=self.work.state.step, reason=reason, message=message, elapsed_s=elapsed_s)

    def _prepare(self) -> Iterator[Event]:
        """Model and data. The first process makes what is not there yet; the others wait, then only read it."""
        is_first = self._world.is_first
        while not (is_first or self._told_to_stop() or self._orders.is_finished()):
            pass
        if not self._stop:
            yield from self.work.set_up()
            yield from self.work.prepare_data(self._told_to_stop if is_first else lambda: False)
        if is_first and not self._stop:
            self._orders.finish()

    def _by_first(self, work: Iterator[Event]) -> Iterator[Event]:
        """Let the first process do what is not dealt out; the others wait, and obey as it does."""
        if self._world.is_first:
            yield from work
            if not self._stop:
                self._orders.finish()
        else:
            while not self._stop and not self._orders.is_finished():
                yield from self._obey()

    # ------------------------------------------------------------ one step

    def _step(self) -> Iterator[Event]:
        making = self.work.state.step + 1
        yield from self.work.interventions.due(making)
        started_at, paused_before_s = time.monotonic(), self._paused_s
        loss, fed = yield from self._accumulate()
        if self._stop:
            return
        clip = self.work.config.optim.clip_norm or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.work.model.parameters(), clip))
        rate = self.work.interventions.rate(making, self.work.steps)
        is_sound = not any(self._world.total(not (math.isfinite(loss) and math.isfinite(norm))))
        self.work.state.count_step(fed)
        if not is_sound:
            yield self._skip_update(loss, norm)
            return
        set_rate(self.work.optimizer, rate)
        self.work.optimizer.step()
        self.work.optimizer.zero_grad()
        self._updated_step = making
        self._non_finite = 0
        self.work.placement.synchronise()
        elapsed_s = time.monotonic() - started_at - (self._paused_s - paused_before_s)
        yield TrainMeasured(
            step=making,
            tokens=self.work.state.tokens,
            loss=loss,
            learning_rate=rate,
            # Six figures are enough to watch by; a log of days is shorter for it, and opens sooner.
            grad_norm=float(f"{norm:.6g}"),
            tokens_per_s=round(fed / max(elapsed_s, 1e-9), 1),
        )

    def _accumulate(self) -> Iterator[Event]:
        """Gather the gradient of the whole batch; returns its loss and the tokens fed (nothing of use if stopped).

        The micro-batches are dealt out to the processes. The summed loss of each is divided by the supervised tokens
        of the whole batch, so that every token weighs the same wherever the cuts fall.
        """
        while True:
            try:
                return (yield from self._accumulate_once())
            except (torch.OutOfMemoryError, RuntimeError) as error:
                self.work.optimizer.zero_grad()
                if not device.ran_out_of_memory(error):
                    raise
                if self._micro_batch == 1:
                    raise RunFailedError(
                        "Memory ran out with a micro-batch of one row.", "Lower model.context or model.width."
                    ) from None
                self._micro_batch //= 2
            # The same rows and the same mean: only the cuts differ.
            yield Warned(message=f"Memory ran out; going on with a micro-batch of {self._micro_batch} rows.")

    def _accumulate_once(self) -> Iterator[Event]:
        step = self.work.state.step
        batches = list(self.work.batches.micro_batches(step, self._micro_batch))
        supervised = sum(batch.supervised for batch in batches)
        if not supervised:
            raise RunFailedError(f"Step {step + 1} has no supervised token.", "Check the data's answers.")
        self.work.model.train()
        loss, ran_out = torch.zeros((), device=self.work.placement.device), False
        self._heart.micro_batches = len(batches)
        for index, batch in enumerate(batches):
            if index % self._world.size == 0:
                self._heart.micro_batches_done = index
                yield from self._obey()
                if self._stop:
                    self.work.optimizer.zero_grad()
                    return 0.0, 0
            if ran_out or index % self._world.size != self._world.rank:
                continue
            # Dropout follows from (seed, step, micro-batch): no random state has to survive a restart.
            torch.manual_seed(((self.work.config.seed * 1_000_003 + step) * 65_537 + index) % 2**63)
            try:
                with self.work.placement.autocast():
                    part = self.work.loss_sum(batch) / supervised
                part.backward()
                loss += part.detach()
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not device.ran_out_of_memory(error):
                    raise
                ran_out = True
        self._heart.micro_batches = self._heart.micro_batches_done = 0
        whole_loss, ran_out = self._world.total(float(loss), ran_out)
        if ran_out:
            raise torch.OutOfMemoryError
        self._world.add_gradients(self.work.model.parameters())
        return whole_loss, sum(batch.fed for batch in batches)

    def _skip_update(self, loss: float, norm: float) -> Event:
        self.work.optimizer.zero_grad()
        self._non_finite += 1
        if self._non_finite >= _NON_FINITE_IN_A_ROW:
            raise RunFailedError(
                f"Loss or gradient was not finite for {self._non_finite} steps in a row (step {self.work.state.step}).",
                "Resume with a lower rate: the checkpoints before it are sound.",
            )
        return NonFiniteMet(
            step=self.work.state.step, what="loss" if not math.isfinite(loss) else f"gradient norm {norm}"
        )

    # ------------------------------------------------------------ measuring and saving

    def _measure_if_due(self) -> Iterator[Event]:
        """Validate, ask, sample and save where the step says so. A checkpoint is always of validated weights, so
        that the best one can be told."""
        state, samples = self.work.state, self.work.config.samples
        step, last = state.step, state.step == self.work.steps
        saves = step > 0 and (last or step % self.work.config.checkpoint_every == 0)
        validates = (
            saves or step % self.work.interventions.validate_every == 0
        ) and state.validated_step != step
        if validates:
            yield from self._validate()
        # A stop may have come between the validation and the last question.
        asks = state.validated_step == step and len(state.probabilities) < len(self.work.questions)
        if asks and not self._stop:
            yield from self._by_first(self._ask())
        is_frame = validates and self.work.config.learns_pairs
        on_pace = step and self.work.saved_step != step and samples.every and step % samples.every == 0
        is_due = is_frame or on_pace or (last and self.work.saved_step != step)
        if samples.every and is_due and not self._stop:
            yield from self._by_first(self._sample())
        # A stop may have saved this step before it was measured: it is saved again, with its figures.
        if saves and (validates or asks or self.work.saved_step != step) and not self._stop:
            yield from self._save()

    def _save(self) -> Iterator[Event]:
        """Write a checkpoint. What is in its way is waited for: the run pauses, and tries again when it goes on."""
        while True:
            problem = ""
            if self._world.is_first:
                try:
                    yield self.work.save()
                except RetryLaterError as error:
                    if self._stop:
                        raise  # whoever asked it to end does not wait
                    problem = error.what.replace(f" of {self.work.run.name}", "")
            if not any(self._world.total(bool(problem))):
                self.work.saved_step = self.work.state.step
                return
            yield from self._pause(problem)
            yield from self._obey()
            if self._stop:
                return

    def _validate(self) -> Iterator[Event]:
        started_at = time.monotonic()
        rows = self.work.config.validation_rows
        nats, supervised = 0.0, 0.0
        self.work.model.eval()
        for index, batch in enumerate(self.work.batches.validation(self._micro_batch, rows)):
            if index % self._world.size == 0:
                yield from self._obey()
                if self._stop:
                    return
            if index % self._world.size != self._world.rank:
                continue
            with torch.no_grad(), self.work.placement.autocast():
                nats += float(self.work.loss_sum(batch))
            supervised += batch.supervised
        nats, supervised = self._world.total(nats, supervised)
        loss = nats / supervised
        size = self.work.batches.validation_bytes(rows)
        if not math.isfinite(loss):
            yield NonFiniteMet(step=self.work.state.step, what="validation loss")
        else:
            self.work.state.validation_loss = loss
        self.work.state.validated_step = self.work.state.step
        yield Validated(
            step=self.work.state.step,
            tokens=self.work.state.tokens,
            loss=loss,
            bits_per_byte=nats / math.log(2) / size if size else math.nan,
            elapsed_s=time.monotonic() - started_at,
            steps=self.work.steps,
        )

    def _ask(self) -> Iterator[Event]:
        """How likely the present weights find the right answers, for each set that they were not yet asked."""
        work, state, voice = self.work, self.work.state, self._voice
        for question_set in work.questions[len(state.probabilities) :]:
            for found in ask(voice, question_set, state.tokens, work.placement.autocast):
                if found is None:
                    yield from self._obey()
                    if self._stop:
                        return
                else:
                    yield found
                    if isinstance(found, NonFiniteMet):
                        return
                    state.probabilities.append(found.mean_probability)

    @property
    def _voice(self) -> generate.Voice:
        work = self.work
        return generate.Voice(work.run, work.state.step, "", work.model, work.tokenizer, work.config)

    def _sample(self) -> Iterator[Event]:
        self.work.model.eval()
        for drawn in generate.samples(self._voice):
            if drawn is None:
                yield from self._obey()
                if self._stop:
                    return
            else:
                yield drawn

    # ------------------------------------------------------------ commands

    def _obey(self) -> Iterator[Event]:
        """Carry out what was commanded since the last look; while paused, stay here."""
        while True:
            self._waiting += self._orders()
            while self._waiting and not self._stop:
                match command := self._waiting.pop(0):
                    case Pause():
                        yield from self._pause()
                    case Resume() if self._pausing_since is not None:
                        self._paused_s += time.monotonic() - self._pausing_since
                        self._pausing_since = None
                        yield RunContinued(step=self.work.state.step)
                    case Stop():
                        self._stop = command
                    case _:
                        yield from self._obey_one(command)
            if self._stop:
                return
            if beat := self._heart.beat(self.work.state, is_paused=self._pausing_since is not None):
                yield beat
            if self._pausing_since is None:
                return
            time.sleep(_PAUSE_LOOK_S)

    def _pause(self, reason: str = "") -> Iterator[Event]:
        if reason or self._pausing_since is None:
            self._pausing_since = self._pausing_since or time.monotonic()
            yield RunPaused(step=self.work.state.step, reason=reason)

    def _obey_one(self, command: Command) -> Iterator[Event]:
        match command:
            case SaveNow() if self.work.state.step and self.work.saved_step != self.work.state.step:
                yield from self._save()
            case SampleNow():
                was_training = self.work.model.training
                yield from self._by_first(self._sample())
                self.work.model.train(was_training)
            case _:
                state = self.work.state
                done = self.work.interventions.obey(command, state.step + 1, state.tokens, self.work.steps)
                if done:
                    yield done

    def _told_to_stop(self) -> bool:
        """For the time before the first step: only a stop can be obeyed there; the rest waits."""
        self._waiting += self._orders()
        self._stop = next((each for each in self._waiting if isinstance(each, Stop)), self._stop)
        return self._stop is not None
