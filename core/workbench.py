"""What a stage trains with: model, optimizer, state and batches, made new or restored from a checkpoint."""

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from core import checkpoint, device
from core.checkpoint import TrainState
from core.config import StageConfig
from core.data.batches import Batch, batches_of
from core.data.prepare import prepare
from core.data.shards import PairSets, TokenShards
from core.data.vocabulary import vocabulary_texts
from core.errors import UsageError
from core.evals.items import QuestionSet
from core.evals.live import sets_to_ask
from core.events import CheckpointSaved, CheckpointSetAside, DataPrepared, Event, RunStarted
from core.interventions import Interventions
from core.launch import parent_folder
from core.model import Transformer, build
from core.optim import load_optimizer_tensors, make_optimizer, optimizer_tensors
from core.runs import Run, Runs, data_folder
from core.tokenizer import Tokenizer


class Workbench:
    """Filled by `set_up`, then by `prepare_data`; each yields the events that it causes.

    Args:
        gpu: the number of the GPU to take, where each of several processes has its own.
    """

    def __init__(self, config: StageConfig, run: Run, gpu: int | None = None) -> None:
        self.config = config
        self.run = run
        self._gpu = gpu
        self.state = TrainState(seed=config.seed)
        self.interventions = Interventions(config)
        self.saved_step = 0
        """Step of the newest checkpoint."""
        self.questions: list[QuestionSet] = []
        """Asked at every validation."""
        self._configured_steps = config.steps

    @property
    def steps(self) -> int:
        """The run's last step."""
        return self.interventions.steps(self._configured_steps)

    def set_up(self) -> Iterator[Event]:
        """Tokenizer, model and optimizer: from the run's newest good checkpoint, its parent's, or the seed."""
        if self.config.model is None:
            raise UsageError(
                "model: this stage's configuration names no sizes.", "Start it with `bbtui train`."
            )
        self.placement = device.of(self.config, self._gpu)
        self.questions = sets_to_ask(self.config.quality)
        self.tokenizer = self._tokenizer()
        self.model = build(self.config.model, self.tokenizer.padded_size)
        weights = yield from self._newest_good()
        if weights:
            checkpoint.check_fits(weights, self.model, self.tokenizer)
            self.state = weights.state
            if self.state.seed != self.config.seed:
                raise UsageError(
                    f"seed: {self.run.name} was begun with seed {self.state.seed}.",
                    "Restore its config.toml.",
                )
        elif self.config.parent:
            weights = checkpoint.load(self._parent())
            checkpoint.check_fits(weights, self.model, self.tokenizer)
        if weights:
            self.model.load_state_dict(weights.tensors)
        else:
            self.model.initialise(self.config.seed)
        self.model.to(self.placement.device)
        self.optimizer = make_optimizer(self.model, self.config.optim)
        self.saved_step = 0
        if weights and self.state.step:
            load_optimizer_tensors(self.model, self.optimizer, checkpoint.load_optimizer(weights.folder))
            self.saved_step = self.state.step
        if self.config.compile:
            # Block by block: they are alike, so one compilation serves them all.
            for block in self.model.blocks:
                block.compile()
        self.interventions.restore(self.state.interventions, self.run.events(), self.state.step)

    def _parent(self) -> Path:
        """The parent's checkpoint. Asked for only where needed: a run with one of its own may outlive its parent."""
        return parent_folder(Runs(self.run.folder.parents[2]), self.config)[1]

    def _tokenizer(self) -> Tokenizer:
        if (self.run.folder / "tokenizer.json").is_file():
            return Tokenizer.load(self.run.folder)
        if self.config.parent:
            tokenizer = Tokenizer.load(self._parent())
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

    def prepare_data(self, should_stop: Callable[[], bool]) -> Iterator[Event]:
        """The batches; none are made after a stop."""
        config, context = self.config, self.model.config.context
        folder = data_folder(self.run.folder.parents[2])
        begun_with = folder / self.state.data
        if self.state.data and begun_with.is_dir():
            # A run ends on the data it began with, even if the files that this was made from have changed since.
            data = (PairSets if config.learns_pairs else TokenShards).open(begun_with)
        else:
            data = yield from prepare(config, self.tokenizer, context, folder, should_stop)
        if data is None:
            return
        if self.state.data and data.folder.name != self.state.data:
            raise UsageError(
                f"The data that {self.run.name} was begun with ({self.state.data}) is gone; its source has changed.",
                "Restore the source, or start a new run from this one's checkpoint.",
            )
        self.state.data = data.folder.name
        self.batches = batches_of(data, config, context, self.tokenizer.end_of_text)
        if config.epochs:
            self._configured_steps = max(1, math.ceil(config.epochs * self.batches.steps_per_epoch))
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

    def loss_sum(self, batch: Batch) -> Tensor:
        """Summed nats of a batch's supervised tokens."""
        return loss_sum(self.model, batch, self.placement.device)

    def save(self) -> Event:
        """Write the checkpoint of the present step and prune older ones. Raises: RetryLaterError."""
        self.state.interventions = self.interventions.rows()
        self.state.model = self.model.config.model_dump()
        self.state.tokenizer = self.tokenizer.fingerprint
        weights = {name: tensor.detach().cpu() for name, tensor in self.model.state_dict().items()}
        moments = {k: t.cpu() for k, t in optimizer_tensors(self.model, self.optimizer).items()}
        size = checkpoint.save(self.run, self.state, self.tokenizer, weights, moments)
        best_by = self.config.quality.best_by
        checkpoint.prune(self.run, self.config.keep_last, best_by)
        self.saved_step = self.state.step
        is_best = checkpoint.best_step(self.run, best_by) == self.state.step
        folder = self.run.checkpoint_folder(self.state.step).name
        return CheckpointSaved(
            step=self.state.step,
            path=folder,
            bytes_written=size,
            is_best=is_best,
            best_by=best_by,
        )


def loss_sum(model: Transformer, batch: Batch, device: torch.device) -> Tensor:
    """Summed nats of a batch's supervised tokens, as `Transformer.loss_sum`, on the model's device."""
    positions = None
    if batch.supervised < batch.targets.numel():
        positions = (batch.targets.flatten() >= 0).nonzero().squeeze(1).to(device)
    inputs = batch.inputs.to(device, non_blocking=True)
    targets = batch.targets.to(device, non_blocking=True)
    return model.loss_sum(inputs, targets, positions)
