"""Preparing data: megabytes of text a second that are tokenised and written as shards."""

import json
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

from core.bench.measurement import GPT2_SMALL, Measurement
from core.config import StageConfig
from core.config_sections import DataConfig
from core.data.manifest import Manifest
from core.data.prepare import prepare
from core.data.sources import documents
from core.tokenizer import Tokenizer

_NAME = "prepare"


def prepare_text(rounds: int, megabytes: float, path: str = "") -> Iterator[Measurement]:
    """Text with GPT-2's vocabulary, each round into a new folder, its checksums and their check included.

    Args:
        megabytes: of the built-in corpus, read again and again.
        path: a file or folder of text to take instead, whole.
    """
    tokenizer = Tokenizer.gpt2()
    samples: list[float] = []
    size = 0
    with tempfile.TemporaryDirectory() as kept:
        source = Path(path) if path else write_repeated(Path(kept) / "text.jsonl", megabytes)
        data = DataConfig(source="files", path=str(source), validation_share=0.01)
        config = GPT2_SMALL.config().model_copy(update={"data": data})
        for number in range(rounds):
            started_s = time.perf_counter()
            size = _prepared_bytes(config, tokenizer, Path(kept) / str(number))
            samples.append(size / 1e6 / (time.perf_counter() - started_s))
    yield Measurement(
        name=_NAME,
        what=f"tokenising and writing {size / 1e6:.0f} MB",
        unit="MB/s",
        samples=tuple(samples),
        device="cpu",
        note="GPT-2's vocabulary",
    )


def write_repeated(file: Path, megabytes: float) -> Path:
    """The built-in corpus as JSON Lines, until it is long enough."""
    left = megabytes * 1e6
    with file.open("w", encoding="utf-8") as handle:
        for text in cycle(list(documents(DataConfig(source="sandlot"), "pretrain"))):
            handle.write(json.dumps({"text": text}) + "\n")
            left -= len(text.encode())
            if left <= 0:
                return file
    return file


def _prepared_bytes(config: StageConfig, tokenizer: Tokenizer, folder: Path) -> int:
    """UTF-8 bytes of the text, once it is prepared."""
    deque(prepare(config, tokenizer, 1024, folder, lambda: False), maxlen=0)
    (made,) = folder.glob("*/MANIFEST.json")
    manifest = Manifest.read(made.parent)
    return manifest.train.text_bytes + manifest.validation.text_bytes
