"""Question-answer pairs from a file: JSON Lines, `Q:` and `A:` lines, or Parquet, told apart by content."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.data.files import is_parquet, json_object, lines_of, opened, parquet_rows, whole_text
from core.errors import DataError

_MARK = re.compile(r"\s*([QA]):\s*(.*)")
_PEEK_BYTES = 1 << 16
_FORMS = 'Give JSON Lines with "question" and "answer", or text with `Q: ` and `A: ` lines.'
_OPTIONAL = ("id", "topic", "split")


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and its answer."""

    id: str
    question: str
    answer: str
    topic: str = ""
    split: str = ""


def read_pairs(path: str | Path) -> list[Pair]:
    """Every pair of a file, in its order. Raises: DataError that names file, line and fix."""
    return list(stream_pairs(Path(path)))


def stream_pairs(path: Path) -> Iterator[Pair]:
    """The pairs of a file one by one, as `read_pairs` reads them.

    A pair without an id gets the file's stem and its line.
    """
    if is_parquet(path):
        pairs = _from_parquet(path)
    elif _looks_like_json(path):
        pairs = _from_json_lines(path)
    else:
        pairs = _from_marked_lines(path)
    count = 0
    for count, pair in enumerate(pairs, 1):  # noqa: B007
        yield pair
    if not count:
        raise DataError(f"{path}: holds no question-answer pairs.", _FORMS)


def _looks_like_json(path: Path) -> bool:
    with opened(path) as handle:
        head = handle.read(_PEEK_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
    if head[:1] in (b"{", b"["):
        return True
    has_marks = _MARK.match(head[:4].decode("utf-8", "replace")) is not None
    return path.suffix.lower() in (".jsonl", ".json") and not has_marks


def _from_json_lines(path: Path) -> Iterator[Pair]:
    for number, line in _text_lines(path):
        if line.strip():
            where = f"{path} line {number}"
            yield _pair_of(json_object(line, where), where, f"{path.stem}:{number}")


def _from_parquet(path: Path) -> Iterator[Pair]:
    for number, row in parquet_rows(path, ("question", "answer"), _OPTIONAL):
        where = f"{path} row {number}"
        try:
            texts = {name: value.decode("utf-8") for name, value in row.items() if value is not None}
        except UnicodeDecodeError:
            raise DataError(f"{where}: not UTF-8 text.", "Write the file again with valid text.") from None
        yield _pair_of(texts, where, f"{path.stem}:{number}")


def _pair_of(row: dict[str, Any], where: str, default_id: str) -> Pair:
    texts = {}
    for name in ("question", "answer"):
        if name not in row:
            keys = ", ".join(row)[:120] or "nothing"
            raise DataError(f'{where}: there is no "{name}" (it has: {keys}).', _FORMS)
        if not isinstance(row[name], str):
            raise DataError(f'{where}: the "{name}" is not text.', "Put it in quotes.")
        texts[name] = whole_text(row[name]).strip()
        if not texts[name]:
            raise DataError(f'{where}: the "{name}" is empty.', "Fill it in, or take the line out.")
    given = row.get("id")
    return Pair(
        id=whole_text(str(given)) if isinstance(given, (str, int)) else default_id,
        **texts,
        **{name: whole_text(row[name]) for name in ("topic", "split") if isinstance(row.get(name), str)},
    )


def _from_marked_lines(path: Path) -> Iterator[Pair]:
    """Pairs of `Q:` and `A:` lines; each goes on over the lines that follow, up to the next mark."""
    parts: dict[str, list[str]] = {}
    begun, mark = 0, ""
    for number, line in _text_lines(path):
        match = _MARK.match(line)
        if match is None:
            if mark:
                parts[mark].append(line)
            elif line.strip():
                raise DataError(f"{path} line {number}: text before the first `Q: ` line.", _FORMS)
            continue
        if match[1] == "Q":
            if mark:
                yield _marked_pair(parts, path, begun)
            parts, begun = {}, number
        elif mark != "Q":
            raise DataError(
                f"{path} line {number}: an answer with no question.",
                "Write a `Q: ` line before each `A: ` line.",
            )
        mark = match[1]
        parts[mark] = [match[2]]
    if mark:
        yield _marked_pair(parts, path, begun)


def _marked_pair(parts: dict[str, list[str]], path: Path, line: int) -> Pair:
    where = f"{path} line {line}"
    if "A" not in parts:
        raise DataError(f"{where}: a question with no answer.", "Write an `A: ` line after each `Q: ` line.")
    texts = {name: "\n".join(text.rstrip() for text in lines) for name, lines in parts.items()}
    return _pair_of({"question": texts["Q"], "answer": texts["A"]}, where, f"{path.stem}:{line}")


def _text_lines(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in lines_of(path):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raise DataError(f"{path} line {number}: not UTF-8 text.", f"Save the file as UTF-8. {_FORMS}")
        yield number, text
