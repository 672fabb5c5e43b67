"""The only training loop: four stages, one iterator of events."""

import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from core import checkpoint, device, generate
from core.chat_format import render_prompt
from core.checkpoint import TrainState
from core.config import StageConfig
from core.data.batches import Batch, batches_of
from core.data.prepare import prepare
from core.data.shards import PairSets, TokenShards
from core.data.vocabulary import vocabulary_texts
from core.errors import BbtuiError, RunFailedError, UsageError
from core.events import (
    CheckpointSaved,
    CheckpointSetAside,
    Command,
    DataPrepared,
    Event,
    LearningRateChanged,
    NonFiniteMet,
    Pause,
    Resume,
    RunContinued,
    RunEnded,
    RunPaused,
    RunStarted,
    SampleDrawn,
    SampleNow,
    SaveNow,
    ScaleLearningRate,
    SetLearningRate,
    Stop,
    TrainMeasured,
    Validated,
    Warned,
)
from core.launch import parent_folder
from core.model import GPT
from core.optim import load_optimizer_tensors, make_adamw, optimizer_tensors, scheduled_rate, set_rate
from core.runs import Follower, Run, Runs, data_folder
from core.tokenizer import Tokenizer

_PAUSE_LOOK_S = 0.05
_NON_FINITE_IN_A_ROW = 3


def train(
    config: StageConfig, run: Run, commands: Callable[[], list[Command]] | None = None
) -> Iterator[Event]:
    """Everything that happens while the stage trains, each event written to the run's log before it is yielded.

    A run folder with checkpoints is gone on with, exactly, from the newest good one.

    Args:
        commands: gives the commands that are new at each call; by default those appended to the run's file.
    Raises: RunBusyError where another process trains the run; BbtuiError kinds, after a RunEnded that says failed.
    """
    with run.held():
        # Commands left from an earlier process were meant for it; a fresh run may have been told something already.
        is_fresh = not run.events_file.exists()
        run.mend_log()
        poll = commands or Follower(run.commands_file, from_end=not is_fresh).commands
        trainer = _Trainer(config, run, poll)
        try:
            for event in trainer.events():
                run.append(event)
                yield event
        except Exception as error:
            message = (
                str(error) if isinstance(error, BbtuiError) else f"{type(error).__name__}: {error}"[:500]
            )
            ended = trainer.ended("failed", message)
            run.append(ended)
            yield ended
            raise


class _Trainer:
    """One process's work on one run. The methods that yield events are the loop, cut into sentences."""

    def __init__(self, config: StageConfig, run: Run, poll: Callable[[], list[Command]]) -> None:
        self.config = config
        self.run = run
        self._poll = poll
        self._waiting: list[Command] = []
        self._started_at = time.monotonic()
        self._paused_s = 0.0
        self._stop: Stop | None = None
        self._micro_batch = config.batch.micro_batch
        self._non_finite = 0
        self.state = TrainState(seed=config.seed)
        self.steps = config.steps

    def events(self) -> Iterator[Event]:
        yield from self._set_up()
        yield from self._prepare_data()
        if not self._stop:
            yield from self._measure_if_due()
        while self.state.step < self.steps and not self._stop:
            yield from self._step()
            if not self._stop:
                yield from self._measure_if_due()
        if not self._stop:
            yield self.ended("completed")
            return
        if self._stop.save and self.state.step and self._saved_step != self.state.step:
            yield self._save()
        yield self.ended(self._stop.reason)

    def ended(self, reason: str, message: str = "") -> RunEnded:
        elapsed_s = time.monotonic() - self._started_at
        return RunEnded(step=self.state.step, reason=reason, message=message, elapsed_s=elapsed_s)

    # ------------------------------------------------------------ before the first step

    def _set_up(self) -> Iterator[Event]:
        if self.config.model is None:
            raise UsageError(
                "model: this stage's configuration names no sizes.", "Start it with `bbtui train`."
            )
        self.placement = device.of(self.config)
        store = Runs(self.run.folder.parents[2])
        parent = parent_folder(store, self.config)[1] if self.config.parent else None
        self.tokenizer = self._tokenizer(parent)
        self.model = GPT(self.config.model, self.tokenizer.padded_size)
        weights = yield from self._newest_good()
        if weights:
            checkpoint.check_fits(weights, self.model, self.tokenizer)
            self.state = weights.state
            if self.state.seed != self.config.seed:
                raise UsageError(
                    f"seed: {self.run.name} was begun with seed {self.state.seed}.",
                    "Restore its config.toml.",
                )
        elif parent:
            weights = checkpoint.load(parent)
            checkpoint.check_fits(weights, self.model, self.tokenizer)
        if weights:
            self.model.load_state_dict(weights.tensors)
        else:
            self.model.initialise(self.config.seed)
        self.model.to(self.placement.device)
        self.optimizer = make_adamw(self.model, self.config.optim)
        self._saved_step = 0
        if weights and self.state.step:
            load_optimizer_tensors(self.model, self.optimizer, checkpoint.load_optimizer(weights.folder))
            self._saved_step = self.state.step
        if self.config.compile:
            # Block by block: they are alike, so one compilation serves them all.
            for block in self.model.h:
                block.compile()
        # Rates changed for later steps than the checkpoint's come again, from the log, when those steps do.
        self.state.rate_changes = [
            change for change in self.state.rate_changes if change[0] <= self.state.step
        ]
        self._changes_to_come = [
            (event.step, event.multiplier)
            for event in self.run.present_events()
            if isinstance(event, LearningRateChanged) and event.step > self.state.step
        ]

    def _tokenizer(self, parent: Path | None) -> Tokenizer:
        if (self.run.folder / "tokenizer.json").is_file():
            return Tokenizer.load(self.run.folder)
        if parent:
            tokenizer = Tokenizer.load(parent)
        elif self.config.tokenizer and self.config.tokenizer.kind == "trained":
            tokenizer = Tokenizer.train(vocabulary_texts(self.config), self.config.tokenizer.vocabulary)
        else:
            tokenizer = Tokenizer.gpt2()
        tokenizer.save(self.run.folder)
        return tokenizer

    def _newest_good(self) -> Iterator[Event]:
        checkpoint.sweep(self.run)
        damaged: list[CheckpointSetAside] = []
        weights = checkpoint.newest_good(
            self.run, lambda path, reason: damaged.append(CheckpointSetAside(path=path.name, reason=reason))
        )
        yield from damaged
        return weights

    def _prepare_data(self) -> Iterator[Event]:
        config, context = self.config, self.model.config.context
        folder = data_folder(self.run.folder.parents[2])
        begun_with = folder / self.state.data
        if self.state.data and begun_with.is_dir():
            # A run ends on the data it began with, even if the files that this was made from have changed since.
            data = (PairSets if config.learns_pairs else TokenShards).open(begun_with)
        else:
            data = yield from prepare(config, self.tokenizer, context, folder, self._told_to_stop)
        if data is None:
            return
        if self.state.data and data.folder.name != self.state.data:
            raise UsageError(
                f"The data that {self.run.name} was begun with ({self.state.data}) is gone, and its source has changed.",
                "Restore the source, or start a new run from this one's checkpoint.",
            )
        self.state.data = data.folder.name
        self.batches = batches_of(data, config, context, self.tokenizer.end_of_text)
        if config.epochs:
            self.steps = max(1, math.ceil(config.epochs * self.batches.steps_per_epoch))
        yield RunStarted(
            run=self.run.name,
            stage=config.stage,
            parent=config.parent,
            parameters=self.model.num_parameters(),
            resumed_from_step=self.state.step,
            steps=self.steps,
            device=self.placement.device.type,
            precision=self.placement.precision,
            process_id=os.getpid(),
        )
        yield DataPrepared(
            source=config.data.source,
            train_tokens=data.train_tokens,
            validation_tokens=data.validation_tokens,
            train_items=data.train_items,
            skipped=data.skipped,
            epochs=self.steps / self.batches.steps_per_epoch,
        )

    # ------------------------------------------------------------ one step

    def _step(self) -> Iterator[Event]:
        making = self.state.step + 1
        while self._changes_to_come and self._changes_to_come[0][0] <= making:
            yield self._change_rate(self._changes_to_come.pop(0)[1])
        started_at, paused_before_s = time.monotonic(), self._paused_s
        loss, fed = yield from self._accumulate()
        if self._stop:
            return
        clip = self.config.optim.clip_norm or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip))
        rate = self._rate()
        self.state.step = making
        self.state.tokens += fed
        self.state.validation_loss = None
        if not (math.isfinite(loss) and math.isfinite(norm)):
            yield self._skip_update(loss, norm)
            return
        set_rate(self.optimizer, rate)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._non_finite = 0
        self.placement.synchronise()
        elapsed_s = time.monotonic() - started_at - (self._paused_s - paused_before_s)
        yield TrainMeasured(
            step=making,
            tokens=self.state.tokens,
            loss=loss,
            learning_rate=rate,
            grad_norm=norm,
            tokens_per_s=fed / max(elapsed_s, 1e-9),
        )

    def _accumulate(self) -> Iterator[Event]:
        """Gather the gradient of the whole batch; returns its loss and the tokens fed (nothing of use if stopped).

        Each micro-batch's summed loss is divided by the supervised tokens of the whole batch, so that every token
        weighs the same wherever the cuts fall.
        """
        while True:
            try:
                return (yield from self._accumulate_once())
            except (torch.OutOfMemoryError, RuntimeError) as error:
                self.optimizer.zero_grad(set_to_none=True)
                if not _is_out_of_memory(error):
                    raise
                if self._micro_batch == 1:
                    raise RunFailedError(
                        "Memory ran out with a micro-batch of one row.", "Lower model.context or model.width."
                    ) from None
                self._micro_batch //= 2
            # The same rows and the same mean: only the cuts differ.
            yield Warned(message=f"Memory ran out; going on with a micro-batch of {self._micro_batch} rows.")

    def _accumulate_once(self) -> Iterator[Event]:
        step = self.state.step
        batches = list(self.batches.micro_batches(step, self._micro_batch))
        supervised = sum(batch.supervised for batch in batches)
        if not supervised:
            raise RunFailedError(f"Step {step + 1} has no supervised token.", "Check the data's answers.")
        self.model.train()
        loss = torch.zeros((), device=self.placement.device)
        for index, batch in enumerate(batches):
            yield from self._obey()
            if self._stop:
                self.optimizer.zero_grad(set_to_none=True)
                return 0.0, 0
            # Dropout follows from (seed, step, micro-batch): no random state has to survive a restart.
            torch.manual_seed(((self.config.seed * 1_000_003 + step) * 65_537 + index) % 2**63)
            with self.placement.autocast():
                part = self._loss_sum(batch) / supervised
            part.backward()
            loss += part.detach()
        return float(loss), sum(batch.fed for batch in batches)

    def _loss_sum(self, batch: Batch) -> Tensor:
        positions = None
        if batch.supervised < batch.targets.numel():
            positions = (batch.targets.flatten() >= 0).nonzero().squeeze(1).to(self.placement.device)
        inputs = batch.inputs.to(self.placement.device, non_blocking=True)
        targets = batch.targets.to(self.placement.device, non_blocking=True)
        return self.model.loss_sum(inputs, targets, positions)

    def _skip_update(self, loss: float, norm: float) -> Event:
        self.optimizer.zero_grad(set_to_none=True)
        self._non_finite += 1
        if self._non_finite >= _NON_FINITE_IN_A_ROW:
            raise RunFailedError(
                f"Loss or gradient was not finite for {self._non_finite} steps in a row (step {self.state.step}).",
                "Resume with a lower rate: the checkpoints before it are sound.",
            )
        return NonFiniteMet(
            step=self.state.step, what="loss" if not math.isfinite(loss) else f"gradient norm {norm}"
        )

    # ------------------------------------------------------------ measuring and saving

    def _measure_if_due(self) -> Iterator[Event]:
        """Validate, sample and save where the step says so. A checkpoint is always of validated weights, so that
        the best one can be told."""
        step, last = self.state.step, self.state.step == self.steps
        saves = step > 0 and (last or step % self.config.checkpoint_every == 0)
        validates = (saves or step % self.config.validate_every == 0) and self.state.validated_step != step
        if validates:
            yield from self._validate()
        every = self.config.samples.every
        if not self._stop and step and self._saved_step != step and every and (last or step % every == 0):
            yield from self._sample()
        # A stop may have saved this step before it was validated: it is saved again, with its figure.
        if saves and (validates or self._saved_step != step) and not self._stop:
            yield self._save()

    def _validate(self) -> Iterator[Event]:
        started_at = time.monotonic()
        rows = self.config.validation_rows
        nats, supervised = 0.0, 0
        self.model.eval()
        for batch in self.batches.validation(self._micro_batch, rows):
            yield from self._obey()
            if self._stop:
                return
            with torch.no_grad(), self.placement.autocast():
                nats += float(self._loss_sum(batch))
            supervised += batch.supervised
        loss = nats / supervised
        size = self.batches.validation_bytes(rows)
        if not math.isfinite(loss):
            yield NonFiniteMet(step=self.state.step, what="validation loss")
        else:
            self.state.validation_loss = loss
        self.state.validated_step = self.state.step
        yield Validated(
            step=self.state.step,
            tokens=self.state.tokens,
            loss=loss,
            bits_per_byte=nats / math.log(2) / size if size else math.nan,
            elapsed_s=time.monotonic() - started_at,
        )

    def _sample(self) -> Iterator[Event]:
        wanted = self.config.samples
        sampling = generate.Sampling(
            wanted.temperature, wanted.top_k, 1.0, wanted.max_tokens, self.config.seed
        )
        self.model.eval()
        limit = max(1, self.model.config.context - wanted.max_tokens)
        for prompt in wanted.prompts:
            if self.config.learns_pairs:
                ids, _ = render_prompt(self.tokenizer, [("user", prompt)], self.config.prompt_format, limit)
            else:
                ids = self.tokenizer.encode(prompt)[-limit:]
            pieces = []
            for drawn in generate.draw(self.model, self.tokenizer, ids, sampling):
                yield from self._obey()
                if self._stop:
                    return
                if isinstance(drawn, generate.TokenDrawn):
                    pieces.append(drawn.text)
            yield SampleDrawn(step=self.state.step, prompt=prompt, text="".join(pieces))

    def _save(self) -> Event:
        self.state.model = self.model.config.model_dump()
        self.state.tokenizer = self.tokenizer.fingerprint
        weights = {name: tensor.detach().cpu() for name, tensor in self.model.state_dict().items()}
        moments = {k: t.cpu() for k, t in optimizer_tensors(self.model, self.optimizer).items()}
        size = checkpoint.save(self.run, self.state, self.tokenizer, weights, moments)
        checkpoint.prune(self.run, self.config.keep_last)
        self._saved_step = self.state.step
        is_best = checkpoint.best_step(self.run) == self.state.step
        folder = self.run.checkpoint_folder(self.state.step).name
        return CheckpointSaved(step=self.state.step, path=folder, bytes_written=size, is_best=is_best)

    # ------------------------------------------------------------ commands

    def _obey(self) -> Iterator[Event]:
        """Carry out what was commanded since the last look; while paused, stay here."""
        pausing_since: float | None = None
        while True:
            for command in self._new_commands():
                match command:
                    case Pause() if pausing_since is None:
                        pausing_since = time.monotonic()
                        yield RunPaused(step=self.state.step)
                    case Resume() if pausing_since is not None:
                        self._paused_s += time.monotonic() - pausing_since
                        pausing_since = None
                        yield RunContinued(step=self.state.step)
                    case Stop():
                        self._stop = command
                        return
                    case _:
                        yield from self._obey_one(command)
            if pausing_since is None:
                return
            time.sleep(_PAUSE_LOOK_S)

    def _obey_one(self, command: Command) -> Iterator[Event]:
        match command:
            case SetLearningRate(learning_rate=rate) if math.isfinite(rate) and 0 <= rate <= 1:
                base = self._rate() / self._multiplier()
                if base > 0:
                    yield self._change_rate(rate / base)
                else:
                    yield Warned(message="The schedule's rate is zero here; it cannot be set in proportion.")
            case ScaleLearningRate(factor=factor) if math.isfinite(factor) and 0 < factor <= 1000:
                yield self._change_rate(self._multiplier() * factor)
            case SetLearningRate() | ScaleLearningRate():
                yield Warned(message=f"A rate was asked for that cannot be: {command}.")
            case SaveNow() if self.state.step and self._saved_step != self.state.step:
                yield self._save()
            case SampleNow():
                was_training = self.model.training
                yield from self._sample()
                self.model.train(was_training)
            case _:
                pass

    def _told_to_stop(self) -> bool:
        """For the time before the first step: only a stop can be obeyed there; the rest waits."""
        for command in self._poll():
            if isinstance(command, Stop):
                self._stop = command
            else:
                self._waiting.append(command)
        return self._stop is not None

    def _new_commands(self) -> list[Command]:
        waiting, self._waiting = self._waiting, []
        return waiting + self._poll()

    def _multiplier(self) -> float:
        return self.state.rate_changes[-1][1] if self.state.rate_changes else 1.0

    def _rate(self) -> float:
        """The rate of the next update."""
        step = min(self.state.step + 1, self.steps)
        return scheduled_rate(self.config.optim, step, self.steps) * self._multiplier()

    def _change_rate(self, multiplier: float) -> Event:
        before = self._rate()
        self.state.rate_changes.append([self.state.step + 1, multiplier])
        return LearningRateChanged(
            step=self.state.step + 1,
            tokens=self.state.tokens,
            before=before,
            after=self._rate(),
            multiplier=multiplier,
        )


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)
