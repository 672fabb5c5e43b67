"""What a stage's data will be: counted where it is prepared already, else estimated from its text, else unknown."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from core.config import StageConfig, TokenizerConfig
from core.data.manifest import Manifest
from core.data.pairs import Pair
from core.data.prepare import is_validation, prepared_folder
from core.data.shards import PairSets, validation_windows_in, windows_in
from core.data.sources import documents, own_files, pairs_of
from core.errors import BbtuiError
from core.runs import Run, Runs, data_folder

# Measured with vocabularies of these sizes on English prose; between them it goes with the size's logarithm.
_BYTES_PER_TOKEN = (
    (300, 1.45),
    (512, 2.1),
    (1024, 2.8),
    (2048, 3.35),
    (4096, 3.8),
    (8192, 4.1),
    (65000, 4.5),
)
_GPT2_BYTES_PER_TOKEN = 4.3
_LARGEST_READ_BYTES = 20 << 20
_MARKERS_OF_A_PAIR = 4
_DRAWN_STEPS = 20
_RUNS_LOOKED_AT = 20


@dataclass(frozen=True, slots=True)
class DataForecast:
    """A stage's data. `items` are windows of running text, or pairs: what a row of a batch is."""

    is_exact: bool
    """Counted in the prepared data, rather than estimated."""
    train_tokens: int
    train_items: int
    validation_items: int
    """Before `validation_rows` limits them."""
    document_tokens: float
    """Of the mean document or pair; 0 where it is not known."""
    row_tokens: float
    """Tokens of a row as computed, padding included: the context, or what pairs are padded to, on average."""
    supervised_share: float
    """Of those tokens, how many are learned."""
    to_write_bytes: int
    """What preparing it will take on the disk; 0 where it is prepared."""


def forecast(store: Runs, config: StageConfig, parent: Run | None, step: int) -> DataForecast | None:
    """The data of a stage, None where nothing is known before it is prepared.

    Args:
        config: with the model and the tokenizer that it inherits.
        step: of the parent's checkpoint.
    Raises: DataError for a file that is not there or cannot be read.
    """
    assert config.model and config.tokenizer
    folder = data_folder(store.root)
    for fingerprint in _fingerprints(store, config, parent, step):
        prepared = prepared_folder(config, fingerprint, config.model.context, folder)
        try:
            if prepared.is_dir():
                return _counted(config, config.model.context, prepared)
        except BbtuiError:
            continue  # damaged: training names it, with the fix
    if config.learns_pairs:
        return _estimated_pairs(config, config.tokenizer, config.model.context)
    return _estimated_text(config, config.tokenizer, config.model.context)


def _fingerprints(store: Runs, config: StageConfig, parent: Run | None, step: int) -> list[str]:
    """Of the tokenizers that the stage could have: its parent's, or for the first stage those of like runs.

    A vocabulary follows from its data and its size, so that an earlier run of the same ones has the same.
    """
    if parent:
        return [fp for fp in [_fingerprint_in(parent.checkpoint_folder(step))] if fp]
    like: list[str] = []
    for run in reversed(store.all(config.stage)[-_RUNS_LOOKED_AT:]):
        try:
            theirs = run.config
        except BbtuiError:
            continue
        if theirs.tokenizer == config.tokenizer and theirs.data.source == config.data.source:
            like.append(_fingerprint_in(run.folder))
    return list(dict.fromkeys(fingerprint for fingerprint in like if fingerprint))


def _fingerprint_in(folder: Path) -> str:
    try:
        return str(json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def _counted(config: StageConfig, context: int, folder: Path) -> DataForecast:
    manifest = Manifest.read(folder)
    train, validation = manifest.train, manifest.validation
    items, validation_items = train.items, validation.items
    row_tokens, share = float(context), 1.0
    if config.learns_pairs:
        pairs = PairSets(folder, manifest).train
        lengths = (pairs.lengths - 1).tolist()
        row_tokens, share = _rows_of_pairs(config, lengths, (pairs.lengths - pairs.answer_starts).tolist())
    else:
        items = windows_in(train.tokens, context)
        validation_items = validation_windows_in(validation.tokens, context)
    return DataForecast(
        is_exact=True,
        train_tokens=train.tokens,
        train_items=items,
        validation_items=validation_items,
        document_tokens=train.tokens / max(1, train.items),
        row_tokens=row_tokens,
        supervised_share=share,
        to_write_bytes=0,
    )


# ---------------------------------------------------------------- estimates


def bytes_per_token(tokenizer: TokenizerConfig) -> float:
    """UTF-8 bytes of English that a token of such a vocabulary stands for, about."""
    if tokenizer.kind == "gpt2":
        return _GPT2_BYTES_PER_TOKEN
    size = tokenizer.vocabulary
    for (low, less), (high, more) in pairwise(_BYTES_PER_TOKEN):
        if size <= high:
            way = math.log(max(1, size / low)) / math.log(high / low)
            return less + way * (more - less)
    return _BYTES_PER_TOKEN[-1][1]


def _estimated_text(config: StageConfig, tokenizer: TokenizerConfig, context: int) -> DataForecast | None:
    share = Fraction(str(config.data.validation_share))
    sizes = [0, 0]
    count = 0
    if config.data.source == "sandlot":
        for index, text in enumerate(documents(config.data, config.stage)):
            sizes[is_validation(index, share)] += len(text.encode())
            count += 1
    elif config.data.source == "files":
        files = own_files(config.data, config.stage)
        if any(file.suffix.lower() == ".parquet" for file in files):
            return None  # compressed: its size says little
        total = sum(file.stat().st_size for file in files)
        sizes = [round(total * (1 - share)), round(total * share)]
    else:
        return None
    per_token = bytes_per_token(tokenizer)
    train, validation = (round(size / per_token) for size in sizes)
    if 0 < config.data.max_tokens < train + validation:
        kept = config.data.max_tokens / (train + validation)
        train, validation = round(train * kept), round(validation * kept)
    return DataForecast(
        is_exact=False,
        train_tokens=train,
        train_items=windows_in(train, context),
        validation_items=validation_windows_in(validation, context),
        document_tokens=(train + validation) / count if count else 0.0,
        row_tokens=float(context),
        supervised_share=1.0,
        to_write_bytes=2 * (train + validation),
    )


def _estimated_pairs(config: StageConfig, tokenizer: TokenizerConfig, context: int) -> DataForecast | None:
    if config.data.source == "files":
        sizes = [file.stat().st_size for file in own_files(config.data, config.stage)]
        if sum(sizes) > _LARGEST_READ_BYTES:
            return None
    elif config.data.source != "sandlot":
        return None
    share, per_token = Fraction(str(config.data.validation_share)), bytes_per_token(tokenizer)
    lengths: list[int] = []
    answers: list[int] = []
    validation = 0
    for pair in pairs_of(config.data, config.stage):
        tokens, answer_tokens = _tokens_of(pair, per_token)
        if tokens > context + 1:
            continue
        if is_validation(len(lengths) + validation, share):
            validation += 1
        else:
            lengths.append(tokens)
            answers.append(answer_tokens)
        if 0 < config.data.max_pairs <= len(lengths) + validation:
            break
    if not lengths:
        return None
    row_tokens, supervised = _rows_of_pairs(config, lengths, answers)
    return DataForecast(
        is_exact=False,
        train_tokens=sum(lengths),
        train_items=len(lengths),
        validation_items=validation,
        document_tokens=sum(lengths) / len(lengths),
        row_tokens=row_tokens,
        supervised_share=supervised,
        to_write_bytes=2 * sum(lengths) + 20 * (len(lengths) + validation),
    )


def _tokens_of(pair: Pair, per_token: float) -> tuple[int, int]:
    answer = max(1, round(len(pair.answer.encode()) / per_token)) + 1
    return answer + round(len(pair.question.encode()) / per_token) + _MARKERS_OF_A_PAIR, answer


def _rows_of_pairs(
    config: StageConfig, lengths: Sequence[int], answers: Sequence[int]
) -> tuple[float, float]:
    """(tokens of a row with its padding, share of them that is learned), on average over some drawn steps.

    A micro-batch is as wide as its longest pair, and pairs of like length stand together.
    """
    import random

    draw = random.Random(config.seed)
    rows_per_step = min(config.batch.examples or len(lengths), len(lengths))
    cells = 0
    steps = max(1, min(_DRAWN_STEPS, 20_000 // rows_per_step))
    for _ in range(steps):
        drawn = sorted(draw.sample(lengths, rows_per_step), reverse=True)
        for start in range(0, rows_per_step, config.batch.micro_batch):
            part = drawn[start : start + config.batch.micro_batch]
            cells += part[0] * len(part)
    row_tokens = cells / (steps * rows_per_step)
    learned = lengths if config.data.supervise == "all" else answers
    return row_tokens, min(1.0, sum(learned) / len(lengths) / row_tokens)
