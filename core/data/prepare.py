"""From a source to a prepared folder: documents or pairs are tokenised once and used by every later run."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from core.chat_format import render_example
from core.config import StageConfig
from core.data.manifest import FORMAT, Manifest
from core.data.pairs import Pair
from core.data.shards import DocumentWriter, PairSets, PairWriter, TokenShards, counts_of
from core.data.skipped import Skipped
from core.data.sources import documents, identity, pairs_of
from core.errors import DataError, RetryLaterError
from core.events import PreparationProgressed
from core.tokenizer import Tokenizer

Progress = Generator[PreparationProgressed, None, None]
_BLOCK_ITEMS = 64
_BLOCK_CHARACTERS = 500_000
_EVENT_PAUSE_S = 0.2
_LARGEST_VOCABULARY = 1 << 16


def prepare(
    config: StageConfig, tokenizer: Tokenizer, context: int, folder: Path, should_stop: Callable[[], bool]
) -> Generator[PreparationProgressed, None, TokenShards | PairSets | None]:
    """The stage's data, made under `folder` or found there; None when it was told to stop.

    Args:
        context: the model's; pairs that do not fit into it are left out.
        should_stop: asked between blocks of documents, or between pairs.
    Yields: progress, at most five times a second.
    Raises: DataError for data that is too little or cannot be used; RetryLaterError if network or disk fail.
    """
    made_from = _made_from(config, tokenizer.fingerprint, context)
    target = _target(config, made_from, folder)
    try:
        if not target.is_dir():
            yield from _make(config, tokenizer, context, target, made_from, should_stop)
    except OSError as error:
        raise RetryLaterError(
            f"Cannot write prepared data under {folder}: {error.strerror or error}.",
            "Free disk space, or choose another folder with the environment variable BBTUI_DATA.",
        ) from None
    if not target.is_dir():
        return None
    manifest = Manifest.read(target)
    for _ in manifest.check(target):
        if should_stop():
            return None
    prepared = PairSets(target, manifest) if config.learns_pairs else TokenShards(target, manifest)
    _check_enough(prepared, config, context)
    return prepared


def prepared_folder(config: StageConfig, tokenizer_fingerprint: str, context: int, folder: Path) -> Path:
    """Where `prepare` makes the stage's data, or has made it. Raises: DataError for files that are not there."""
    return _target(config, _made_from(config, tokenizer_fingerprint, context), folder)


def fingerprint(made_from: dict[str, Any]) -> str:
    """12 hex digits of everything that a prepared folder depends on."""
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:12]


def is_validation(index: int, share: Fraction) -> bool:
    """Whether an item is held back: every (1 / share)-th, the second one first.

    An item is held back where floor(index * share) rises, counted two items late, so that even two items
    give one to learn from and one to validate on. No seed is in it: all runs validate on the same items.
    """
    return (index - 1) * share // 1 > (index - 2) * share // 1


# ---------------------------------------------------------------- making a folder


def _target(config: StageConfig, made_from: dict[str, Any], folder: Path) -> Path:
    return folder / f"{config.data.source}-{fingerprint(made_from)}"


def _made_from(config: StageConfig, tokenizer_fingerprint: str, context: int) -> dict[str, Any]:
    made_from: dict[str, Any] = {
        "format": FORMAT,
        "tokenizer": tokenizer_fingerprint,
        "validation_share": config.data.validation_share,
        **identity(config.data, config.stage),
    }
    if config.learns_pairs:
        own = {"max_pairs": config.data.max_pairs, "prompt_format": config.prompt_format, "context": context}
    else:
        own = {"max_tokens": config.data.max_tokens}
    return made_from | own


def _make(
    config: StageConfig,
    tokenizer: Tokenizer,
    context: int,
    target: Path,
    made_from: dict[str, Any],
    should_stop: Callable[[], bool],
) -> Progress:
    """Make the folder `target`, whole or not at all; it is left out when told to stop."""
    if tokenizer.size > _LARGEST_VOCABULARY:
        raise DataError(
            f"A vocabulary of {tokenizer.size:,} ids does not fit into 16 bits.", "Take at most 65,536."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    # The generator may be taken on by another thread than the one that began it.
    lock = FileLock(target.with_name(f"{target.name}.lock"), thread_local=False)
    yield from _acquire(lock, should_stop)
    if not lock.is_locked:
        return
    partial = target.with_name(f"{target.name}.partial")
    try:
        # Another process may have made it meanwhile; and only a killed one leaves a partial folder behind.
        if target.is_dir():
            return
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        write = _write_pairs if config.learns_pairs else _write_documents
        manifest = yield from write(config, tokenizer, context, partial, should_stop)
        if manifest is not None:
            Manifest(**manifest, made_from=made_from).write(partial)
            _publish(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        lock.release()


def _acquire(lock: FileLock, should_stop: Callable[[], bool]) -> Progress:
    while not should_stop():
        try:
            lock.acquire(timeout=_EVENT_PAUSE_S, poll_interval=0.02)
            return
        except Timeout:
            yield PreparationProgressed(what="another process prepares this data", documents=0, tokens=0)


def _publish(partial: Path, target: Path) -> None:
    _sync_folder(partial)
    try:
        partial.rename(target)
    except OSError:
        # Where locks do not reach (some network drives), whoever comes second uses the first one's.
        if not target.is_dir():
            raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_documents(
    config: StageConfig, tokenizer: Tokenizer, _context: int, folder: Path, should_stop: Callable[[], bool]
) -> Generator[PreparationProgressed, None, dict[str, Any] | None]:
    skipped = Skipped()
    train, validation = DocumentWriter(folder, "train"), DocumentWriter(folder, "validation")
    clock = _Clock(f"tokenising {config.data.source}")
    try:
        for text, ids in _encoded(documents(config.data, config.stage, skipped), tokenizer, should_stop):
            if ids is None:
                return None
            items = train.items + validation.items
            writer = validation if is_validation(items, _share(config)) else train
            writer.add([*ids, tokenizer.end_of_text], len(text.encode()))
            tokens = train.tokens + validation.tokens
            if clock.is_due():
                yield clock.event(items + 1, tokens)
            if 0 < config.data.max_tokens <= tokens:
                break
        return _finish("documents", train, validation, skipped, config)
    finally:
        train.close()
        validation.close()


def _write_pairs(
    config: StageConfig, tokenizer: Tokenizer, context: int, folder: Path, should_stop: Callable[[], bool]
) -> Generator[PreparationProgressed, None, dict[str, Any] | None]:
    skipped = Skipped()
    train, validation = PairWriter(folder, "train"), PairWriter(folder, "validation")
    clock = _Clock(f"tokenising {config.data.source}")
    try:
        for pair in _limited(pairs_of(config.data, config.stage, skipped), config.data.max_pairs):
            if should_stop():
                return None
            ids, answer_start = render_example(tokenizer, pair.question, pair.answer, config.prompt_format)
            # The last id is only ever a target, so a pair may be one longer than what the model takes in.
            if len(ids) > context + 1:
                skipped.note(f"longer than {context + 1} tokens", pair.id)
                continue
            items = train.items + validation.items
            writer = validation if is_validation(items, _share(config)) else train
            writer.add(ids, answer_start, len(pair.question.encode()), len(pair.answer.encode()))
            if clock.is_due():
                yield clock.event(items + 1, train.tokens + validation.tokens)
        return _finish("pairs", train, validation, skipped, config)
    finally:
        train.close()
        validation.close()


def _finish(
    kind: str,
    train: DocumentWriter | PairWriter,
    validation: DocumentWriter | PairWriter,
    skipped: Skipped,
    config: StageConfig,
) -> dict[str, Any]:
    """The manifest's values, once all files are on the disk. Raises: DataError for too little to use."""
    where = config.data.path or config.data.source
    left_out = f" Left out: {skipped.in_words()}." if skipped.total else ""
    if not train.items:
        raise DataError(
            f"{where} holds no usable {kind}.{left_out}", "Give a file with text in it, saved as UTF-8."
        )
    if not validation.items:
        raise DataError(
            f"{where} holds 1 of the {kind} that can be used: none is left to validate on.{left_out}",
            "Give at least two.",
        )
    return {
        "kind": kind,
        "files": train.finish() | validation.finish(),
        "train": counts_of(train),
        "validation": counts_of(validation),
        "skipped": dict(skipped.counts),
    }


def _check_enough(prepared: TokenShards | PairSets, config: StageConfig, context: int) -> None:
    if isinstance(prepared, TokenShards) and prepared.train_tokens < context + 1:
        where = config.data.path or config.data.source
        raise DataError(
            f"{where} gives {prepared.train_tokens:,} training tokens; one window takes {context + 1:,}.",
            "Give more text, raise data.max_tokens, or train a model with a shorter context.",
        )


# ---------------------------------------------------------------- blocks and progress


class _Clock:
    """Says when the next progress event is due."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._last_s = time.monotonic()

    def is_due(self) -> bool:
        return time.monotonic() - self._last_s >= _EVENT_PAUSE_S

    def event(self, items: int, tokens: int) -> PreparationProgressed:
        self._last_s = time.monotonic()
        return PreparationProgressed(what=self._what, documents=items, tokens=tokens)


def _encoded(
    texts: Iterable[str], tokenizer: Tokenizer, should_stop: Callable[[], bool]
) -> Iterator[tuple[str, list[int] | None]]:
    """Each text with its ids, block by block; None in their place, once, when told to stop."""
    for block in _blocks(texts):
        if should_stop():
            yield "", None
            return
        yield from zip(block, tokenizer.encode_many(block), strict=True)


def _blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    block: list[str] = []
    characters = 0
    for text in texts:
        block.append(text)
        characters += len(text)
        if len(block) >= _BLOCK_ITEMS or characters >= _BLOCK_CHARACTERS:
            yield block
            block, characters = [], 0
    if block:
        yield block


def _limited(pairs: Iterator[Pair], most: int) -> Iterator[Pair]:
    return islice(pairs, most) if most else pairs


def _share(config: StageConfig) -> Fraction:
    # By its decimal digits: a tenth is then exactly every tenth item.
    return Fraction(str(config.data.validation_share))
