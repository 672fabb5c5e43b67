"""The manifest of a prepared folder: what it was made from, its counts, and every file's size and SHA-256."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from core.errors import DataError

FORMAT = 1
FILE_NAME = "MANIFEST.json"


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """What a split holds."""

    items: int
    """Documents or pairs."""
    tokens: int
    text_bytes: int
    """UTF-8 bytes of the text behind the tokens."""


@dataclass(frozen=True, slots=True)
class Manifest:
    kind: str
    """`documents` or `pairs`."""
    made_from: dict[str, Any]
    """Everything that the result depends on; its hash is the folder's fingerprint."""
    train: SplitCounts
    validation: SplitCounts
    skipped: dict[str, int]
    """Items left out, by reason."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """`{"bytes": n, "sha256": "..."}` of each file, by its name."""

    def write(self, folder: Path) -> None:
        """Write `MANIFEST.json` and wait until it is on the disk."""
        row = {"format": FORMAT, **asdict(self)}
        with (folder / FILE_NAME).open("w", encoding="utf-8") as handle:
            json.dump({**row, "sha256": _hash_of(row)}, handle, indent=1, ensure_ascii=False)
            handle.flush()
            os.fsync(handle.fileno())

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest of a folder. Raises: DataError where it is missing or damaged."""
        path = folder / FILE_NAME
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            if row.pop("sha256") != _hash_of(row) or row.pop("format") != FORMAT:
                raise ValueError
            train, validation = SplitCounts(**row.pop("train")), SplitCounts(**row.pop("validation"))
            return cls(**row, train=train, validation=validation)
        except FileNotFoundError:
            raise damaged(path, "it is missing") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise damaged(path, "it does not hold what was written") from None

    def check(self, folder: Path) -> Iterator[str]:
        """The name of each file as it is found whole: sizes of all first, then every SHA-256.

        Raises: DataError that names the first file that is missing or damaged.
        """
        for name, expected in self.files.items():
            path = folder / name
            if not path.is_file():
                raise damaged(path, "it is missing")
            if path.stat().st_size != expected["bytes"]:
                raise damaged(path, f"it has {path.stat().st_size:,} bytes instead of {expected['bytes']:,}")
        for name, expected in self.files.items():
            path = folder / name
            try:
                with path.open("rb") as handle:
                    found = hashlib.file_digest(handle, "sha256").hexdigest()
            except OSError as error:
                raise damaged(path, f"it cannot be read: {error.strerror}") from None
            if found != expected["sha256"]:
                raise damaged(path, "its SHA-256 is not the one noted when it was made")
            yield name


class HashedFile:
    """A file that is written once, front to back, and knows its size and SHA-256 at the end."""

    def __init__(self, path: Path) -> None:
        self._handle = path.open("wb")
        self._digest = hashlib.sha256()
        self._bytes = 0

    def write(self, data: bytes) -> None:
        self._handle.write(data)
        self._digest.update(data)
        self._bytes += len(data)

    def close(self) -> None:
        self._handle.close()

    def finish(self) -> dict[str, Any]:
        """The manifest's entry, once all of it is on the disk and the file is closed."""
        self._handle.flush()
        os.fsync(self._handle.fileno())
        self._handle.close()
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}


def damaged(path: Path, reason: str) -> DataError:
    """The error for a prepared file that must not be used."""
    return DataError(
        f"The prepared data file {path} is damaged: {reason}.",
        f"Delete the folder {path.parent}; it is made anew at the next start.",
    )


def _hash_of(row: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()
