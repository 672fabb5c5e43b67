"""Files that users give, opened so that every failure names the file and says what to do."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import DataError

_PARQUET_MAGIC = b"PAR1"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file, open for reading bytes. Raises: DataError where it is missing, a folder, or not readable."""
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder, not a file.", "Give one of the files in it.")
        handle = path.open("rb")
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.", "Check the spelling of the path.") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    with handle:
        try:
            yield handle
        except OSError as error:
            raise _unreadable(path, error) from None


def find_files(path: Path, endings: tuple[str, ...]) -> list[Path]:
    """The file itself, or the files under a folder with one of these endings, in the order of their paths.

    Names that begin with a dot are passed over.
    Raises: DataError for a path that is not there, a file of another kind, or a folder that holds none.
    """
    known = f"This stage reads {', '.join(endings)}."
    try:
        if path.is_dir():
            inside = sorted(
                found for found in path.rglob("*") if found.is_file() and not _is_hidden(found, path)
            )
        elif path.is_file():
            inside = [path]
        else:
            raise DataError(f"There is no file or folder {path}.", "Check the path: --set data.path=...")
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    for found in inside:
        if found.suffix.lower() == ".pdf":
            raise DataError(
                f"{found} is a PDF, which cannot be read yet.",
                f"Convert it to text and give that instead, for example with: pdftotext -layout {found.name}",
            )
    files = [found for found in inside if found.suffix.lower() in endings]
    if not files and path.is_file():
        raise DataError(f"{path.name}: the ending {path.suffix or '(none)'} is not known.", known)
    if not files:
        raise DataError(f"The folder {path} holds no file that can be learned from.", known)
    return files


def is_parquet(path: Path) -> bool:
    """Whether the file is Parquet by its first bytes, or says so by its name."""
    with opened(path) as handle:
        return handle.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC or path.suffix.lower() == ".parquet"


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """Each line with its number, from 1, without its line end; a byte order mark is dropped."""
    with opened(path) as handle:
        for number, line in enumerate(handle, 1):
            yield number, line.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").rstrip(b"\r\n")


def json_object(line: str, where: str) -> dict[str, Any]:
    """The JSON object on a line. Raises: DataError that begins with `where`."""
    fix = (
        'Each line must be one JSON object, such as {"question": "...", "answer": "..."} or {"text": "..."}.'
    )
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not valid JSON: {error.msg} (column {error.colno}).", fix) from None
    except (ValueError, RecursionError):
        raise DataError(f"{where}: not valid JSON: nested too deeply or a number too large.", fix) from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: holds {_kind(row)}, not a JSON object.", fix)
    return row


def parquet_rows(
    path: Path, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> Iterator[tuple[int, dict[str, bytes | None]]]:
    """Each row of text columns with its number, from 1.

    Values stay bytes, since Parquet does not promise valid UTF-8.
    Raises: DataError for a damaged file, or where a required column is missing or holds no text.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with opened(path) as handle, pq.ParquetFile(handle) as file:
            schema = file.schema_arrow
            check_columns(path, list(schema.names), required)
            columns = [name for name in (*required, *optional) if name in schema.names]
            for name in columns:
                if not _is_text(schema.field(name).type):
                    raise DataError(
                        f"{path.name}: the column {name} holds {schema.field(name).type}, not text.",
                        "Store it as text (string).",
                    )
            for batch in file.iter_batches(batch_size=256, columns=columns):
                values = [batch.column(name).cast(pa.large_binary()).to_pylist() for name in columns]
                for row in zip(*values, strict=True):
                    number += 1
                    yield number, dict(zip(columns, row, strict=True))
    except (pa.ArrowException, OSError) as error:
        raise damaged_parquet(path, error) from None


def check_columns(path: Path, found: list[str], required: tuple[str, ...]) -> None:
    """Raises: DataError that names the missing columns and those that are there."""
    missing = [name for name in required if name not in found]
    if missing:
        raise DataError(
            f"{path.name}: there is no column {', '.join(missing)} (it has: {', '.join(found)[:120]}).",
            f"Rename or add the columns so that it holds {', '.join(required)}.",
        )


def damaged_parquet(path: Path, error: Exception) -> DataError:
    """The error for a file that its Parquet reader refuses."""
    reason = (str(error).splitlines() or [""])[0][:120]
    return DataError(f"{path}: not a readable Parquet file: {reason}", "Make or copy the file again.")


def whole_text(text: str) -> str:
    """The text without lone surrogates, which JSON can carry and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _is_hidden(found: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in found.relative_to(folder).parts)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return any(
        check(kind) for check in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    )


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = getattr(error, "strerror", None) or "not a usable path"
    return DataError(f"Cannot read {path}: {reason}.", "Check the path and its permissions.")


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "a truth value", int: "a number", float: "a number"}
    return names.get(type(value), "nothing")
