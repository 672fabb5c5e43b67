"""Prepared token files: written once, checked at each start, and memory-mapped.

Text becomes `train-00000.bin`, ... and `validation-00000.bin`, ...: little-endian uint16 ids, documents one
after another, each followed by end-of-text. Pairs become five files a split: ids, offsets, answer starts, and
the bytes of question and answer.
"""

from array import array
from pathlib import Path
from typing import Any, Self

import numpy as np

from core.data.manifest import HashedFile, Manifest, SplitCounts

SHARD_TOKENS = 1 << 26
SPLITS = ("train", "validation")
_TOKEN = np.dtype("<u2")
_PAIR_COLUMNS = {
    "offsets": np.dtype("<i8"),
    "answer-starts": np.dtype("<i4"),
    "question-bytes": np.dtype("<i4"),
    "answer-bytes": np.dtype("<i4"),
}


def windows_in(tokens: int, context: int) -> int:
    """Training windows that a text of so many tokens gives, whatever the epoch's offset is."""
    # Two windows of text leave the offset little choice.
    return max(1, (tokens - context) // context)


def validation_windows_in(tokens: int, context: int) -> int:
    """Windows that a validation text gives: a short one is one shorter window, rather than none."""
    return (tokens - 1) // min(context, tokens - 1) if tokens > 1 else 0


# ---------------------------------------------------------------- writing


class DocumentWriter:
    """Writes one split of a text."""

    def __init__(self, folder: Path, split: str, shard_tokens: int = SHARD_TOKENS) -> None:
        self._folder, self._split, self._shard_tokens = folder, split, shard_tokens
        self._room = 0
        self._open: list[tuple[str, HashedFile]] = []
        self._done: dict[str, dict[str, Any]] = {}
        self.items = self.tokens = self.text_bytes = 0

    def add(self, ids: list[int], text_bytes: int) -> None:
        """Write a document's ids, end-of-text included; a document may go on in the next shard."""
        rest = np.asarray(ids, dtype=_TOKEN)
        while len(rest):
            if not self._room:
                self._next_shard()
            part, rest = rest[: self._room], rest[self._room :]
            self._open[-1][1].write(part.tobytes())
            self._room -= len(part)
        self.items += 1
        self.tokens += len(ids)
        self.text_bytes += text_bytes

    def finish(self) -> dict[str, dict[str, Any]]:
        """The manifest's entries of the files."""
        self._finish_shard()
        return self._done

    def close(self) -> None:
        for _, file in self._open:
            file.close()

    def _next_shard(self) -> None:
        self._finish_shard()
        name = f"{self._split}-{len(self._done):05d}.bin"
        self._open.append((name, HashedFile(self._folder / name)))
        self._room = self._shard_tokens

    def _finish_shard(self) -> None:
        if self._open:
            name, file = self._open.pop()
            self._done[name] = file.finish()


class PairWriter:
    """Writes one split of question-answer pairs."""

    def __init__(self, folder: Path, split: str) -> None:
        self._folder, self._split = folder, split
        self._ids = HashedFile(folder / f"{split}-tokens.bin")
        self._columns = {name: array("q") for name in _PAIR_COLUMNS}
        self._columns["offsets"].append(0)
        self.items = self.tokens = self.text_bytes = 0

    def add(self, ids: list[int], answer_start: int, question_bytes: int, answer_bytes: int) -> None:
        """Write a pair's ids, end-of-text included; the answer's begin at `answer_start`."""
        self._ids.write(np.asarray(ids, dtype=_TOKEN).tobytes())
        self.items += 1
        self.tokens += len(ids)
        self.text_bytes += question_bytes + answer_bytes
        for name, value in zip(
            _PAIR_COLUMNS, (self.tokens, answer_start, question_bytes, answer_bytes), strict=True
        ):
            self._columns[name].append(value)

    def finish(self) -> dict[str, dict[str, Any]]:
        """The manifest's entries of the files."""
        done = {f"{self._split}-tokens.bin": self._ids.finish()}
        for name, kind in _PAIR_COLUMNS.items():
            file = HashedFile(self._folder / f"{self._split}-{name}.bin")
            file.write(np.asarray(self._columns[name], dtype=kind).tobytes())
            done[f"{self._split}-{name}.bin"] = file.finish()
        return done

    def close(self) -> None:
        self._ids.close()


def counts_of(writer: DocumentWriter | PairWriter) -> SplitCounts:
    return SplitCounts(items=writer.items, tokens=writer.tokens, text_bytes=writer.text_bytes)


# ---------------------------------------------------------------- reading


class _PreparedFolder:
    """A prepared folder whose files are whole.

    Args:
        manifest: the folder's own, where its files have just been checked against it.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._load()

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The folder, every file checked. Raises: DataError that names a damaged file and the fix."""
        manifest = Manifest.read(folder)
        for _ in manifest.check(folder):
            pass
        return cls(folder, manifest)

    def _load(self) -> None:
        raise NotImplementedError

    @property
    def source(self) -> str:
        return str(self.manifest.made_from["source"])

    @property
    def train_items(self) -> int:
        """Documents or pairs to learn from."""
        return self.manifest.train.items

    @property
    def validation_items(self) -> int:
        return self.manifest.validation.items

    @property
    def train_tokens(self) -> int:
        return self.manifest.train.tokens

    @property
    def validation_tokens(self) -> int:
        return self.manifest.validation.tokens

    @property
    def validation_bytes(self) -> int:
        """UTF-8 bytes of the validation text."""
        return self.manifest.validation.text_bytes

    @property
    def skipped(self) -> int:
        """Documents or pairs left out."""
        return sum(self.manifest.skipped.values())


class TokenStream:
    """The ids of one split, end to end over its memory-mapped shards."""

    def __init__(self, paths: list[Path]) -> None:
        self._shards = [_mapped(path, _TOKEN) for path in paths]
        self._ends = np.cumsum([len(shard) for shard in self._shards], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def slice(self, start: int, stop: int) -> np.ndarray:
        """The ids from `start` up to `stop`, as int64. Raises: IndexError outside the stream."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"{start}:{stop} of {len(self)} tokens")
        parts = []
        at = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            begin = int(self._ends[at]) - len(self._shards[at])
            end = min(stop, int(self._ends[at]))
            parts.append(self._shards[at][start - begin : end - begin])
            start, at = end, at + 1
        return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, dtype=np.int64)


class TokenShards(_PreparedFolder):
    """A prepared text: `train` and `validation` are streams of ids."""

    train: TokenStream
    validation: TokenStream

    def _load(self) -> None:
        names = sorted(self.manifest.files)
        self.train, self.validation = (
            TokenStream([self.folder / name for name in names if name.startswith(f"{split}-")])
            for split in SPLITS
        )


class PairSet:
    """The pairs of one split. `lengths`, `answer_starts` and the bytes have one entry a pair."""

    def __init__(self, folder: Path, split: str) -> None:
        self._ids = _mapped(folder / f"{split}-tokens.bin", _TOKEN)
        columns = {
            name: _mapped(folder / f"{split}-{name}.bin", kind) for name, kind in _PAIR_COLUMNS.items()
        }
        self._offsets = columns["offsets"]
        self.lengths = np.diff(self._offsets)
        """Ids of each pair, end-of-text included."""
        self.answer_starts = columns["answer-starts"]
        """Index of each pair's first answer id."""
        self.question_bytes = columns["question-bytes"]
        self.answer_bytes = columns["answer-bytes"]

    def __len__(self) -> int:
        return len(self.lengths)

    def ids(self, index: int) -> np.ndarray:
        """The ids of a pair, as int64."""
        return self._ids[self._offsets[index] : self._offsets[index + 1]].astype(np.int64)


class PairSets(_PreparedFolder):
    """Prepared question-answer pairs: `train` and `validation` are sets of pairs."""

    train: PairSet
    validation: PairSet

    def _load(self) -> None:
        self.train, self.validation = (PairSet(self.folder, split) for split in SPLITS)


def _mapped(path: Path, kind: np.dtype) -> np.ndarray:
    # An empty file cannot be mapped.
    if not path.stat().st_size:
        return np.empty(0, dtype=kind)
    return np.memmap(path, dtype=kind, mode="r")
