"""Where documents and question-answer pairs come from, by the configuration's `data.source`."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import core
from core.config import DataConfig
from core.data.files import find_files, is_parquet, json_object, lines_of, opened, parquet_rows, whole_text
from core.data.hub import HUB_SOURCES, fineweb_edu_texts, local_files, nectar_pairs
from core.data.pairs import Pair, stream_pairs
from core.data.skipped import Skipped
from core.errors import DataError

_TEXT_ENDINGS = (".txt", ".md")
_DOCUMENT_ENDINGS = (*_TEXT_ENDINGS, ".jsonl", ".parquet")
_PAIR_ENDINGS = (".jsonl", ".json", ".txt", ".md", ".parquet")
# One file is one document where there are many; a few long ones are cut, so that a share can be held back.
_FEW_FILES = 20
_DOCUMENT_CHARACTERS = 2000
_SHORTEST_CHARACTERS = 100
_FEWEST_DOCUMENTS = 10


def documents(config: DataConfig, stage: str, skipped: Skipped | None = None) -> Iterator[str]:
    """The documents that a stage learns from, in a fixed order.

    Args:
        skipped: counts the documents that are left out: empty ones and those that are not UTF-8.
    Raises: DataError for a file that cannot be read; RetryLaterError where the hub cannot be reached.
    """
    skipped = skipped if skipped is not None else Skipped()
    if config.source == "sandlot":
        return _sandlot_documents(part_of(stage))
    if config.source == "files":
        return _file_documents(Path(config.path), skipped)
    return fineweb_edu_texts(config.path, skipped)


def pairs_of(config: DataConfig, stage: str, skipped: Skipped | None = None) -> Iterator[Pair]:
    """The question-answer pairs that a stage learns from, in a fixed order; see `documents`."""
    skipped = skipped if skipped is not None else Skipped()
    if config.source == "sandlot":
        return iter(sandlot_pairs(part_of(stage), "train"))
    if config.source == "files":
        return (pair for file in find_files(Path(config.path), _PAIR_ENDINGS) for pair in stream_pairs(file))
    return nectar_pairs(config.path, skipped)


def identity(config: DataConfig, stage: str) -> dict[str, Any]:
    """What the source's content depends on, as plain JSON: equal identities give equal documents or pairs."""
    if config.source == "sandlot":
        return {"source": config.source, "part": part_of(stage), "sha256": _sandlot_hash(stage)}
    if config.source in HUB_SOURCES and not config.path:
        hub = HUB_SOURCES[config.source]
        return {"source": config.source, "config": hub.config, "revision": hub.revision}
    path = Path(config.path)
    files = own_files(config, stage) if config.source == "files" else local_files(config.path)
    rows = []
    for file in files:
        with opened(file):
            status = file.stat()
        name = file.name if file == path else file.relative_to(path).as_posix()
        rows.append([name, status.st_size, status.st_mtime_ns])
    return {"source": config.source, "path": str(path), "files": rows}


def own_files(config: DataConfig, stage: str) -> list[Path]:
    """The files under `data.path` that a stage reads. Raises: DataError where there is none."""
    return find_files(Path(config.path), _PAIR_ENDINGS if _is_of_pairs(stage) else _DOCUMENT_ENDINGS)


def _is_of_pairs(stage: str) -> bool:
    return stage.endswith("finetune")


# ---------------------------------------------------------------- the built-in corpus


def part_of(stage: str) -> str:
    """The part of the built-in corpus that a stage learns from: `general` or `baseball`."""
    return "baseball" if stage.startswith("baseball") else "general"


def sandlot_pairs(part: str, split: str) -> list[Pair]:
    """The built-in pairs of a part, `general` or `baseball`, and a split, `train` or `heldout`."""
    files = _sandlot_files(f"{part}_qa*.jsonl")
    return [pair for file in files for pair in stream_pairs(file) if pair.split == split]


def _sandlot_documents(part: str) -> Iterator[str]:
    for file in _sandlot_files(f"{part}/*.md"):
        yield file.read_text(encoding="utf-8").removeprefix("# ").strip()


def _sandlot_files(pattern: str) -> list[Path]:
    folder = Path(core.__file__).parent / "corpus"
    files = sorted(folder.glob(pattern))
    if not files:
        raise DataError(f"The built-in corpus lacks {folder / pattern}.", "Install bbtui again.")
    return files


def _sandlot_hash(stage: str) -> str:
    digest = hashlib.sha256()
    for file in _sandlot_files(
        f"{part_of(stage)}_qa*.jsonl" if _is_of_pairs(stage) else f"{part_of(stage)}/*.md"
    ):
        digest.update(f"{file.name}:{hashlib.sha256(file.read_bytes()).hexdigest()};".encode())
    return digest.hexdigest()


# ---------------------------------------------------------------- your own files


def _file_documents(path: Path, skipped: Skipped) -> Iterator[str]:
    files = find_files(path, _DOCUMENT_ENDINGS)
    is_cut = sum(file.suffix.lower() in _TEXT_ENDINGS for file in files) < _FEW_FILES
    for file in files:
        if file.suffix.lower() in _TEXT_ENDINGS:
            texts = _text_file(file, is_cut, skipped)
        elif is_parquet(file):
            texts = _parquet_texts(file, skipped)
        else:
            texts = _json_texts(file, skipped)
        yield from texts


def _text_file(file: Path, is_cut: bool, skipped: Skipped) -> Iterator[str]:
    with opened(file) as handle:
        text = _decoded(handle.read(), file.name, skipped)
    if text is not None:
        text = text.removeprefix("\ufeff").replace("\r\n", "\n")
        yield from _cut(text) if is_cut else [text]


def _cut(text: str) -> Iterator[str]:
    """The text as documents of some 2,000 characters, cut at blank lines, or at line ends if few."""
    enough = max(_SHORTEST_CHARACTERS, min(_DOCUMENT_CHARACTERS, len(text) // _FEWEST_DOCUMENTS))
    separator = "\n\n"
    paragraphs = re.split(r"\n[ \t]*\n\s*", text)
    if len(paragraphs) < _FEWEST_DOCUMENTS:
        separator, paragraphs = "\n", text.split("\n")
    gathered: list[str] = []
    length = 0
    for paragraph in paragraphs:
        gathered.append(paragraph)
        length += len(paragraph)
        if length >= enough:
            yield from _unless_blank(separator.join(gathered))
            gathered, length = [], 0
    yield from _unless_blank(separator.join(gathered))


def _unless_blank(text: str) -> Iterator[str]:
    if text := text.strip():
        yield text


def _json_texts(file: Path, skipped: Skipped) -> Iterator[str]:
    for number, line in lines_of(file):
        where = f"{file} line {number}"
        if not line.strip():
            continue
        text = _decoded(line, where, skipped)
        if text is None:
            continue
        row = json_object(text, where)
        if not isinstance(row.get("text"), str):
            keys = ", ".join(row)[:120] or "nothing"
            raise DataError(
                f'{where}: there is no "text" (it has: {keys}).', 'Each line must be {"text": "..."}.'
            )
        if row["text"].strip():
            yield whole_text(row["text"])
        else:
            skipped.note("empty", where)


def _parquet_texts(file: Path, skipped: Skipped) -> Iterator[str]:
    for number, row in parquet_rows(file, ("text",)):
        text = _decoded(row["text"] or b"", f"{file.name} row {number}", skipped)
        if text is not None:
            yield text


def _decoded(data: bytes, name: str, skipped: Skipped) -> str | None:
    """The bytes as text, or None, counted, where they are none."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        skipped.note("not UTF-8", name)
    elif not text.removeprefix("\ufeff").strip():
        skipped.note("empty", name)
    else:
        return text
    return None
