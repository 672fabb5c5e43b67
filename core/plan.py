"""What a new run will be, before it is started: sizes, steps, epochs, memory, disk, and what to be warned of.

Loads without torch: what only torch knows of the machine comes with the probe (`core.probe`), as a `Machine`.
"""

import math
import shutil
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from core.config import ModelConfig, StageConfig
from core.errors import MissingError, UsageError
from core.launch import count_parameters, padded_vocabulary, resolved
from core.runs import Run, Runs

if TYPE_CHECKING:
    from core.data.forecast import DataForecast

_PROGRAM_BYTES = 400_000_000
"""Resident with Python, PyTorch and its kernels, before any model: measured on Linux, CPU build."""
_LOGITS_AT_ONCE = 1 << 24
"""As `core.loss` has it; that file needs torch."""
_KEPT_BYTES = {"gpt2": (40, 24, 4), "modern": (60, 45, 16), "nanochat": (56, 41, 8)}
"""Bytes kept for the backward pass per token and number of its vector: by a block, the same in bfloat16, outside."""
_PLAIN_ATTENTION_UP_TO = 512
"""As `core.model` has it."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What only torch knows of the machine."""

    device: str
    precision: str
    has_gpu: bool
    has_bfloat16: bool
    """Whether the device computes it faster than float32."""
    gpu_free_bytes: int = 0
    """0 where the run does not use one."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Where a run's memory goes, in bytes; estimated.

    P parameters, B rows of a micro-batch, T tokens of a row, C width, L layers, H heads, V vocabulary, N learned
    tokens of a micro-batch, e bytes of a number in the forward pass (4, or 2 in bfloat16):

    - weights 4 P, gradient 4 P; in bfloat16 another 2 P for the weights' copies
    - optimizer: AdamW 8 a parameter, Muon 4 a parameter of the blocks' matrices
    - activations: B T C (L a + b + 36), a being what a block keeps for its backward pass: for GPT-2 40 (24 in
      bfloat16), for the modern one 60 (45), for nanochat 56 (41), 2 e more with dropout; b 4, 16 or 8. Plain attention
      (bfloat16 on a CPU, T up to 512) adds L (2 B H T T + 4 B T C). These were read off autograd; the 36 is for the
      backward pass itself and what it computes again.
    - logits: 8 a number of one chunk, at most 2^24 of them, 12 where they are capped; 12 V C for the head's gradients;
      8 N C
    - program: 400 MB
    """

    weights_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    logits_bytes: int
    program_bytes: int

    @property
    def total_bytes(self) -> int:
        return sum(asdict(self).values())


@dataclass(frozen=True)
class Plan:
    """A run as it would be. Counts that depend on data not yet prepared are None."""

    config: StageConfig
    """As resolved: with the sizes and the vocabulary that it inherits, its parent named."""
    vocabulary: int
    """Rows of the embedding."""
    parameters: int
    data: "DataForecast | None"
    memory_total_bytes: int
    memory_free_bytes: int
    disk_free_bytes: int
    machine: Machine | None = None
    """None until torch has been asked; float32 on a CPU is assumed meanwhile."""

    @property
    def model(self) -> ModelConfig:
        assert self.config.model
        return self.config.model

    @property
    def rows_per_step(self) -> int | None:
        """Windows or pairs of an optimizer step."""
        if not self.config.learns_pairs:
            return self.config.batch.tokens // self.model.context
        return self.config.batch.examples or (self.data.train_items if self.data else None)

    @property
    def micro_batch(self) -> int:
        """Rows computed at once."""
        return min(self.config.batch.micro_batch, self.rows_per_step or self.config.batch.micro_batch)

    @property
    def tokens_per_step(self) -> int | None:
        """Tokens fed in an optimizer step, padding left out."""
        if not self.config.learns_pairs:
            return self.config.batch.tokens
        if self.data is None or self.rows_per_step is None:
            return None
        return round(self.rows_per_step * self.data.document_tokens)

    @property
    def steps(self) -> int | None:
        if self.config.steps:
            return self.config.steps
        if self.data is None or not self.rows_per_step:
            return None
        return max(1, math.ceil(self.config.epochs * self.data.train_items / self.rows_per_step))

    @property
    def tokens(self) -> int | None:
        """Tokens fed in all."""
        return self.steps * self.tokens_per_step if self.steps and self.tokens_per_step else None

    @property
    def epochs(self) -> float | None:
        """How often the training data will be seen."""
        if self.config.epochs:
            return self.config.epochs
        if self.data is None or not self.rows_per_step:
            return None
        return self.config.steps * self.rows_per_step / self.data.train_items

    @property
    def validation_rows(self) -> int | None:
        """Windows or pairs that are validated on."""
        limit = self.config.validation_rows
        if self.data is None:
            return limit or None
        return min(self.data.validation_items, limit or self.data.validation_items)

    @property
    def row_tokens(self) -> float:
        """Tokens of a row as computed, padding included."""
        return self.data.row_tokens if self.data else float(self.model.context)

    @cached_property
    def memory(self) -> Memory:
        return _memory(self)

    @property
    def memory_there_bytes(self) -> int:
        """Free memory of the device that the run will use."""
        return (
            self.machine.gpu_free_bytes
            if self.machine and self.machine.gpu_free_bytes
            else self.memory_free_bytes
        )

    @property
    def checkpoint_bytes(self) -> int:
        """Weights and the optimizer's memory."""
        return 4 * self.parameters + self.memory.optimizer_bytes

    @property
    def checkpoints_kept(self) -> int:
        """On the disk at once: the newest ones, the best one, and one that is being written."""
        return min(self.config.keep_last + 2, self.num_saves + 1) if self.steps else self.config.keep_last + 2

    @property
    def disk_bytes(self) -> int:
        """Needed for checkpoints, and for prepared data as far as its size is known."""
        return self.checkpoint_bytes * self.checkpoints_kept + (self.data.to_write_bytes if self.data else 0)

    @property
    def num_saves(self) -> int:
        """Checkpoints written from the first step to the last."""
        return _times(self.steps or 0, self.config.checkpoint_every)

    @property
    def num_validations(self) -> int:
        """Step 0, every so many steps, and each checkpoint."""
        return 1 + _times(self.steps or 0, self.config.validate_every, self.config.checkpoint_every)

    @property
    def num_samples(self) -> int:
        """Times that the fixed prompts are answered."""
        config, every = self.config, self.config.samples.every
        if not every:
            return 0
        if config.learns_pairs:
            return 1 + _times(self.steps or 0, every, config.validate_every, config.checkpoint_every)
        return _times(self.steps or 0, every)

    @property
    def num_questions(self) -> int:
        """Held-out questions asked at each validation."""
        quality = self.config.quality
        return quality.questions * (len(quality.files) or 2)

    def on(self, machine: Machine) -> "Plan":
        """The same plan, now that the machine is known."""
        return replace(self, machine=machine)

    def to_row(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        names = (
            "parameters vocabulary steps tokens_per_step tokens epochs rows_per_step validation_rows "
            "checkpoint_bytes checkpoints_kept disk_bytes disk_free_bytes memory_free_bytes"
        )
        return {
            "preset": self.config.preset,
            "stage": self.config.stage,
            "parent": self.config.parent,
            **{name: getattr(self, name) for name in names.split()},
            "data": asdict(self.data) if self.data else None,
            "memory": {**asdict(self.memory), "total_bytes": self.memory.total_bytes},
            "machine": asdict(self.machine) if self.machine else None,
        }


def plan_of(
    store: Runs,
    preset: str,
    stage: str,
    from_run: str | None = None,
    overrides: list[str] | None = None,
) -> Plan:
    """What `launch.start` with the same arguments would train; nothing is made or verified.

    Raises: ConfigError, UsageError, DataError; MissingError where there is no parent.
    """
    # Numpy and the tokenizer's library are not needed by whoever only knows plans.
    from core.data.forecast import forecast

    config = resolved(store, preset, stage, from_run, overrides, _step_of)
    assert config.model and config.tokenizer
    vocabulary = padded_vocabulary(config.tokenizer)
    parent, step = _parent(store, config)
    memory = psutil.virtual_memory()
    return Plan(
        config=config,
        vocabulary=vocabulary,
        parameters=count_parameters(config.model, vocabulary),
        data=forecast(store, config, parent, step),
        memory_total_bytes=memory.total,
        memory_free_bytes=memory.available,
        disk_free_bytes=_disk_free_bytes(store.root),
    )


def _step_of(run: Run, at: str) -> int:
    """The step of a run's checkpoint, by the names of its folders alone."""
    steps = run.checkpoint_steps()
    if at == "best":
        from core.checkpoint import best_step

        found = best_step(run)
    else:
        found = (steps[-1] if steps else None) if at == "last" else int(at)
    if found is None or found not in steps:
        listed = (
            f"It has these steps: {', '.join(map(str, steps))}." if steps else "Let it run to its first one."
        )
        raise MissingError(f"{run.name} has no checkpoint @{at}.", listed)
    return found


def _parent(store: Runs, config: StageConfig) -> tuple[Run | None, int]:
    if not config.parent:
        return None, 0
    name, _, step = config.parent.partition("@")
    return store.find(name)[0], int(step)


def _disk_free_bytes(folder: Path) -> int:
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError as error:
        raise UsageError(f"Cannot look at the disk of {folder}: {error.strerror or error}.") from None


def _times(steps: int, *periods: int) -> int:
    """How many of the steps from 1 on are multiples of one of the numbers, or the last one."""
    counted = sum(
        (-1) ** (size + 1) * (steps // math.lcm(*some))
        for size in range(1, len(periods) + 1)
        for some in combinations(periods, size)
    )
    return counted + (steps > 0 and all(steps % period for period in periods))


def _memory(plan: Plan) -> Memory:
    model, config, parameters = plan.model, plan.config, plan.parameters
    machine = plan.machine or Machine("cpu", "float32", has_gpu=False, has_bfloat16=False)
    is_short = machine.precision == "bfloat16"
    c, layers, tokens = model.width, model.layers, round(plan.micro_batch * plan.row_tokens)
    matrices = 12 * c * c * layers if config.optim.matrices == "muon" else 0
    in_full, in_short, outside = _KEPT_BYTES[model.architecture]
    kept = in_short if is_short else in_full
    if model.dropout:
        kept += 4 if is_short else 8
    activations = tokens * c * (layers * kept + outside + 36)
    if is_short and machine.device == "cpu" and plan.row_tokens <= _PLAIN_ATTENTION_UP_TO:
        activations += layers * tokens * round(2 * model.heads * plan.row_tokens + 4 * c)
    learned = round(tokens * (plan.data.supervised_share if plan.data else 1))
    chunk = min(learned, max(16, _LOGITS_AT_ONCE // plan.vocabulary))
    per_logit = 12 if model.architecture == "nanochat" else 8
    return Memory(
        weights_bytes=(6 if is_short else 4) * parameters,
        gradient_bytes=4 * parameters,
        optimizer_bytes=4 * matrices + 8 * (parameters - matrices),
        activation_bytes=activations,
        logits_bytes=per_logit * chunk * plan.vocabulary + 12 * plan.vocabulary * c + 8 * learned * c,
        # A GPU holds neither Python nor PyTorch's libraries.
        program_bytes=_PROGRAM_BYTES if machine.device == "cpu" else 0,
    )
