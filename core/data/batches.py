"""Batches as pure functions of (seed, step, row): no loader state, so a resumed run sees the same data.

Letters: B rows of a micro-batch, T tokens of a row.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from core.config import StageConfig
from core.data.shards import PairSet, PairSets, TokenShards, validation_windows_in, windows_in
from core.errors import ConfigError, DataError

Item = TypeVar("Item")
IGNORED = -1
"""The target where nothing is supervised."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One micro-batch."""

    inputs: Tensor
    """(B, T) int64"""
    targets: Tensor
    """(B, T) int64: the id that follows each input, or -1 where nothing is supervised."""
    supervised: int
    """Targets that count."""
    fed: int
    """Input tokens, padding left out."""


class Batches(Protocol):
    """What the training loop needs of its data. Steps count from 0."""

    @property
    def steps_per_epoch(self) -> float:
        """Optimizer steps that see the training data once."""
        ...

    def rows(self, step: int) -> list[tuple[int, int]]:
        """(epoch, item) of each row of an optimizer step; it does not depend on the micro-batch."""
        ...

    def micro_batches(self, step: int, micro_batch: int) -> Iterator[Batch]:
        """All micro-batches of an optimizer step, each of at most `micro_batch` rows."""
        ...

    def validation(self, micro_batch: int, limit_rows: int) -> Iterator[Batch]:
        """The validation rows, in the same order every time; the first `limit_rows` of them, or all for 0."""
        ...

    def validation_bytes(self, limit_rows: int) -> int:
        """UTF-8 bytes of the text that those rows supervise."""
        ...


def batches_of(
    prepared: TokenShards | PairSets, config: StageConfig, context: int, pad_id: int
) -> "WindowBatches | PairBatches":
    """The batches that a stage's configuration asks for. Raises: ConfigError, DataError."""
    if isinstance(prepared, PairSets):
        return PairBatches(prepared, config.batch.examples, config.seed, config.data.supervise, pad_id)
    rows, rest = divmod(config.batch.tokens, context)
    if rest or not rows:
        raise ConfigError(
            [f"batch.tokens: {config.batch.tokens} is not a multiple of the model's context {context}"],
            f"Take {max(1, rows) * context}: --set batch.tokens={max(1, rows) * context}",
        )
    return WindowBatches(prepared, context, rows, config.seed)


class WindowBatches:
    """Windows of running text; every target is supervised.

    Each epoch cuts the text anew, from an offset of its own, so that the borders between windows move.

    Args:
        context: tokens of a row (T).
        rows_per_step: windows of an optimizer step.
    Raises: DataError where the text is shorter than one window.
    """

    def __init__(self, shards: TokenShards, context: int, rows_per_step: int, seed: int) -> None:
        tokens, validation_tokens = len(shards.train), len(shards.validation)
        if tokens < context + 1 or validation_tokens < 2:
            raise DataError(
                f"{tokens:,} training and {validation_tokens:,} validation tokens are too few: "
                f"one window takes {context + 1:,}.",
                "Give more text, or train a model with a shorter context.",
            )
        self._shards, self._context, self._rows_per_step, self._seed = shards, context, rows_per_step, seed
        self.windows = windows_in(tokens, context)
        self._offsets = min(context, tokens - self.windows * context)
        self._order = _EpochOrder(seed, self.windows)
        self._validation_context = min(context, validation_tokens - 1)
        self._validation_windows = validation_windows_in(validation_tokens, context)

    @property
    def steps_per_epoch(self) -> float:
        return self.windows / self._rows_per_step

    def rows(self, step: int) -> list[tuple[int, int]]:
        return self._order.rows(step, self._rows_per_step)

    def micro_batches(self, step: int, micro_batch: int) -> Iterator[Batch]:
        for part in _cut(self.rows(step), micro_batch):
            yield _batch([(self._window(epoch, index), 1) for epoch, index in part], 0)

    def validation(self, micro_batch: int, limit_rows: int = 0) -> Iterator[Batch]:
        length = self._validation_context
        for part in _cut(range(self._validation_rows(limit_rows)), micro_batch):
            starts = [index * length for index in part]
            yield _batch([(self._shards.validation.slice(s, s + length + 1), 1) for s in starts], 0)

    def validation_bytes(self, limit_rows: int = 0) -> int:
        supervised = self._validation_rows(limit_rows) * self._validation_context
        return round(self._shards.validation_bytes * supervised / self._shards.validation_tokens)

    def offset(self, epoch: int) -> int:
        """Where the epoch's first window begins."""
        return int(_random_bits(self._seed, epoch, 1)[0] % np.uint64(self._offsets))

    def _window(self, epoch: int, index: int) -> np.ndarray:
        start = self.offset(epoch) + index * self._context
        return self._shards.train.slice(start, start + self._context + 1)

    def _validation_rows(self, limit_rows: int) -> int:
        return min(self._validation_windows, limit_rows or self._validation_windows)


class PairBatches:
    """Question-answer pairs; each is a row of its own, so that none can look at another.

    Args:
        examples_per_step: pairs of an optimizer step; 0 takes all of them, one step an epoch.
        supervise: `answers` leaves the question's targets out; `all` learns those too.
        pad_id: fills the inputs of shorter rows; its targets are left out.
    Raises: DataError where a split is empty.
    """

    def __init__(
        self,
        pairs: PairSets,
        examples_per_step: int,
        seed: int,
        supervise: Literal["answers", "all"],
        pad_id: int,
    ) -> None:
        if not len(pairs.train) or not len(pairs.validation):
            raise DataError(
                f"{len(pairs.train):,} pairs to learn from, {len(pairs.validation):,} to validate on.",
                "Give at least two pairs that fit into the model's context.",
            )
        self._pairs, self._supervise, self._pad_id = pairs, supervise, pad_id
        self._rows_per_step = examples_per_step or len(pairs.train)
        self._order = _EpochOrder(seed, len(pairs.train))

    @property
    def steps_per_epoch(self) -> float:
        return len(self._pairs.train) / self._rows_per_step

    def rows(self, step: int) -> list[tuple[int, int]]:
        return self._order.rows(step, self._rows_per_step)

    def micro_batches(self, step: int, micro_batch: int) -> Iterator[Batch]:
        return self._batches(self._pairs.train, [index for _, index in self.rows(step)], micro_batch)

    def validation(self, micro_batch: int, limit_rows: int = 0) -> Iterator[Batch]:
        rows = range(self._validation_rows(limit_rows))
        return self._batches(self._pairs.validation, list(rows), micro_batch)

    def validation_bytes(self, limit_rows: int = 0) -> int:
        rows = self._validation_rows(limit_rows)
        total = int(self._pairs.validation.answer_bytes[:rows].sum())
        if self._supervise == "all":
            total += int(self._pairs.validation.question_bytes[:rows].sum())
        return total

    def _batches(self, pairs: PairSet, indices: list[int], micro_batch: int) -> Iterator[Batch]:
        # Rows of like length share a micro-batch, which spares padding; the longest come first, so that
        # memory that does not suffice shows at once.
        by_length = sorted(indices, key=lambda index: (-pairs.lengths[index], index))
        for part in _cut(by_length, micro_batch):
            yield _batch(
                [(pairs.ids(index), self._first_target(pairs, index)) for index in part], self._pad_id
            )

    def _first_target(self, pairs: PairSet, index: int) -> int:
        # Questions are left out: scoring them would teach how people ask, not what to answer.
        return max(1, int(pairs.answer_starts[index])) if self._supervise == "answers" else 1

    def _validation_rows(self, limit_rows: int) -> int:
        return min(len(self._pairs.validation), limit_rows or len(self._pairs.validation))


class _EpochOrder:
    """The order in which each epoch takes its items; only the last epoch's is kept."""

    def __init__(self, seed: int, items: int) -> None:
        self._seed, self._items = seed, items
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def rows(self, step: int, rows_per_step: int) -> list[tuple[int, int]]:
        """(epoch, item) of each row of a step."""
        rows: list[tuple[int, int]] = []
        first, last = step * rows_per_step, (step + 1) * rows_per_step
        while first < last:
            epoch, position = divmod(first, self._items)
            end = min(self._items, position + last - first)
            rows += [(epoch, int(item)) for item in self._of(epoch)[position:end]]
            first += end - position
        return rows

    def _of(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            # The first word is the offset of windows. NumPy promises these bits, but not its shuffle, to stay
            # the same from version to version; so the order is that of random keys.
            keys = _random_bits(self._seed, epoch, self._items + 1)[1:]
            self._order = np.argsort(keys, kind="stable")
            self._epoch = epoch
        return self._order


def _random_bits(seed: int, epoch: int, words: int) -> np.ndarray:
    """Random 64-bit words that belong to an epoch."""
    return np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(words)


def _cut(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    left = iter(items)
    while part := list(islice(left, size)):
        yield part


def _batch(rows: list[tuple[np.ndarray, int]], pad_id: int) -> Batch:
    """A batch of rows (ids, index of the first supervised id), padded to the longest."""
    width = max(len(ids) for ids, _ in rows) - 1
    inputs = np.full((len(rows), width), pad_id, dtype=np.int64)
    targets = np.full((len(rows), width), IGNORED, dtype=np.int64)
    for row, (ids, first) in enumerate(rows):
        inputs[row, : len(ids) - 1] = ids[:-1]
        targets[row, first - 1 : len(ids) - 1] = ids[first:]
    return Batch(
        inputs=torch.from_numpy(inputs),
        targets=torch.from_numpy(targets),
        supervised=sum(len(ids) - first for ids, first in rows),
        fed=sum(len(ids) - 1 for ids, _ in rows),
    )
