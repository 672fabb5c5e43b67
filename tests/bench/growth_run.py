"""The processes of `tests.bench.growth`: one makes shards of a size and a run on them, another trains that run."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

from core import device
from core.bench.__main__ import answer
from core.bench.measurement import Measurement, Sizes
from core.bench.preparing import write_repeated
from core.config_sections import DataConfig, TokenizerConfig
from core.data.manifest import Manifest
from core.data.prepare import prepared_folder
from core.data.shards import DocumentWriter, counts_of
from core.data.vocabulary import vocabulary_texts
from core.events import TrainMeasured
from core.runs import Runs, data_folder
from core.tokenizer import Tokenizer
from core.train import train

_VALIDATION_TOKENS = 100_000


def make(root: str, tokens: int, steps: int, sizes: Sizes) -> Iterator[Measurement]:
    """A run that finds its data prepared: so many tokens, the same million again and again. Its name is the note."""
    store = Runs(Path(root))
    text = write_repeated(store.root / "text.jsonl", 1.0)
    config = sizes.config().model_copy(
        update={
            "preset": "growth",
            "steps": steps,
            "validate_every": 10**8,
            "validation_rows": 1,
            "checkpoint_every": 10**8,
            "data": DataConfig(source="files", path=str(text)),
            "tokenizer": TokenizerConfig(kind="trained", vocabulary=sizes.vocabulary),
        }
    )
    run = store.create(config)
    tokenizer = Tokenizer.train(vocabulary_texts(config), sizes.vocabulary)
    tokenizer.save(run.folder)
    folder = prepared_folder(config, tokenizer.fingerprint, sizes.context, data_folder(store.root))
    folder.mkdir(parents=True)
    numbers = np.random.default_rng(7).integers(0, tokenizer.size, 1_000_000)
    train_writer, validation = DocumentWriter(folder, "train"), DocumentWriter(folder, "validation")
    while (left := tokens - train_writer.tokens) > 0:
        train_writer.add(numbers[:left], 4 * min(left, len(numbers)))  # type: ignore[arg-type]
    validation.add(numbers[:_VALIDATION_TOKENS], 4 * _VALIDATION_TOKENS)  # type: ignore[arg-type]
    files = train_writer.finish() | validation.finish()
    counts = {"train": counts_of(train_writer), "validation": counts_of(validation)}
    Manifest("documents", {"source": "files"}, skipped={}, files=files, **counts).write(folder)
    yield Measurement(name="make", what="shards", unit="tokens", samples=(float(tokens),), note=run.name)


def train_on(root: str, run: str, warm_up: int) -> Iterator[Measurement]:
    """Tokens a second of each step after the warm-up; the note is what the process holds for itself at the end."""
    held = Runs(Path(root)).find(run)[0]
    rates = [event.tokens_per_s for event in train(held.config, held) if isinstance(event, TrainMeasured)]
    placement = device.of(held.config)
    yield Measurement(
        name="train",
        what=run,
        unit="tokens/s",
        samples=tuple(rates[warm_up:]),
        memory_bytes=placement.peak_memory_bytes(),
        device=placement.device.type,
        precision=placement.precision,
        # Pages of the mapped shards are the system's to give back, but count as the process's own in its peak.
        note=f"{psutil.Process().memory_full_info().uss / 1e6:.0f}",
    )


if __name__ == "__main__":
    answer({"make": make, "train_on": train_on}.__getitem__)
