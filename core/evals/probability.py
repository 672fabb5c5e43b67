"""The probability that a model gives to the correct next token of an answer, and how sure a mean of it is."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from core.chat_format import render_example
from core.data.pairs import Pair
from core.errors import CheckpointError
from core.evals.results import ModelResult
from core.generate import Voice
from core.model import Transformer

FloatArray = NDArray[np.float64]

# Tokens in a batch, padding included. On a CPU a batch is also what a stop has to wait for.
_CPU_BATCH_TOKENS = 4096
_GPU_BATCH_TOKENS = 32768
_RESAMPLES = 2000
_SEED = 20261122


@dataclass(frozen=True, slots=True)
class _Row:
    index: int
    ids: list[int]
    answer_start: int


def score(
    voice: Voice,
    pairs: list[Pair],
    should_stop: Callable[[], bool] = lambda: False,
    batch_tokens: int | None = None,
) -> Iterator[dict[int, FloatArray]]:
    """Batch by batch: index into `pairs` -> log probability of each answer token, end-of-text last.

    Each token is judged given the question and the correct answer so far (teacher forcing). A pair that is
    longer than the model's context comes in no batch. After a stop no further batch comes.

    Args:
        batch_tokens: most tokens computed at once, padding included; a longer pair is a batch of its own.
    Raises: CheckpointError where the model's probabilities are not numbers.
    """
    model = voice.model.eval()
    rows = []
    for index, pair in enumerate(pairs):
        if should_stop():
            return
        ids, start = render_example(voice.tokenizer, pair.question, pair.answer, voice.config.prompt_format)
        # The last token is only ever a target.
        if len(ids) - 1 <= model.config.context:
            rows.append(_Row(index, ids, start))
    if batch_tokens is None:
        batch_tokens = _CPU_BATCH_TOKENS if model.device.type == "cpu" else _GPU_BATCH_TOKENS
    for batch in _batches(rows, batch_tokens):
        if should_stop():
            return
        found = _score_batch(model, batch)
        if not all(np.isfinite(logs).all() for logs in found.values()):
            raise CheckpointError(
                f"{voice.run.name} gives probabilities that are not numbers at step {voice.step}.",
                "Take an earlier checkpoint of it: RUN@STEP.",
            )
        yield found


def _batches(rows: list[_Row], batch_tokens: int) -> Iterator[list[_Row]]:
    """Rows of like length together, so that little is padded; the longest, which need most memory, first."""
    rows = sorted(rows, key=lambda row: len(row.ids), reverse=True)
    start = 0
    while start < len(rows):
        count = max(1, batch_tokens // len(rows[start].ids))
        yield rows[start : start + count]
        start += count


@torch.inference_mode()
def _score_batch(model: Transformer, rows: list[_Row]) -> dict[int, FloatArray]:
    shape = len(rows), max(len(row.ids) for row in rows) - 1
    tokens = torch.zeros(shape, dtype=torch.long)
    targets = torch.full(shape, -1)
    for i, row in enumerate(rows):
        length = len(row.ids) - 1
        tokens[i, :length] = torch.tensor(row.ids[:-1])
        # The position before a token predicts it. Padding stands to the right, where no answer token sees it.
        targets[i, row.answer_start - 1 : length] = torch.tensor(row.ids[row.answer_start :])
    positions = (targets.flatten() >= 0).nonzero().squeeze(1)
    device = model.device
    logs = model.log_probabilities(tokens.to(device), targets.to(device), positions.to(device))
    ends = np.cumsum([len(row.ids) - row.answer_start for row in rows])
    pieces = np.split(logs.cpu().double().numpy(), ends[:-1])
    return {row.index: piece for row, piece in zip(rows, pieces, strict=True)}


def resampled_means(sums: FloatArray, counts: FloatArray) -> FloatArray:
    """Mean over all tokens of each bootstrap resample of the questions, (resamples, models).

    Questions are drawn, not tokens: those of one answer are not independent. A resample holds the same
    questions for every model, so that models can be compared within it. The draws are the same at every call.

    Shapes: sums and counts (models, questions): summed probability and number of tokens of each answer.
    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13 (percentile interval).
    """
    generator = np.random.default_rng(_SEED)
    means = np.empty((_RESAMPLES, len(sums)))
    for row in means:
        drawn = generator.integers(sums.shape[1], size=sums.shape[1])
        # take() keeps each model's row in one piece: its sum is then the same beside any other models.
        row[:] = sums.take(drawn, axis=1).sum(axis=1) / counts.take(drawn, axis=1).sum(axis=1)
    return means


def interval95(values: FloatArray) -> tuple[float, float]:
    """The middle 95 % of resampled values, as its two ends."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def mean_probability(logs: Iterable[FloatArray]) -> float:
    """Mean over all tokens of all answers of the probability of the right token."""
    return float(np.exp(np.concatenate(list(logs))).mean())


def model_result(logs: list[FloatArray], answer_bytes: int, ci95: tuple[float, float]) -> ModelResult:
    """The figures of answers, of which each is the log probabilities of its tokens, end-of-text last.

    Args:
        answer_bytes: of all answers' text together, in UTF-8.
    """
    every = np.concatenate(logs)
    without_end = np.concatenate([answer[:-1] for answer in logs])
    return ModelResult(
        mean_probability=mean_probability(logs),
        ci95=ci95,
        nats_per_byte=float(-every.sum() / answer_bytes),
        per_question_mean=float(np.mean([np.exp(answer).mean() for answer in logs])),
        geometric_mean=float(np.exp(every.mean())),
        mean_probability_without_end=float(np.exp(without_end).mean()),
        perplexity=float(np.exp(-every.mean())),
    )
