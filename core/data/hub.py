"""FineWeb-Edu and Nectar, streamed from the Hugging Face hub or from local Parquet of the same columns."""

import glob
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.data.files import check_columns, damaged_parquet, find_files, opened, whole_text
from core.data.pairs import Pair
from core.data.skipped import Skipped
from core.errors import DataError, RetryLaterError

_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


@dataclass(frozen=True, slots=True)
class HubSource:
    """A data set on the hub, pinned to one commit so that the same run can be made again."""

    repository: str
    config: str
    revision: str
    columns: tuple[str, ...]


FINEWEB_EDU = HubSource(
    repository="HuggingFaceFW/fineweb-edu",
    config="sample-10BT",
    revision="87f09149ef4734204d70ed1d046ddc9ca3f2b8f9",
    columns=("text",),
)
NECTAR = HubSource(
    repository="berkeley-nest/Nectar",
    config="default",
    revision="3c6b4c47fa1cc38869f9f32dce1699f7abad8b06",
    columns=("prompt", "answers", "turns", "good_natured"),
)
HUB_SOURCES = {"fineweb-edu": FINEWEB_EDU, "nectar": NECTAR}


def fineweb_edu_texts(path: str, skipped: Skipped) -> Iterator[str]:
    """The texts of FineWeb-Edu, in the data set's order.

    Args:
        path: a local copy, file or folder of Parquet; empty for the hub.
    Raises: RetryLaterError where the hub cannot be reached; DataError for a local copy that cannot be read.
    """
    for number, row in enumerate(_rows(FINEWEB_EDU, path), 1):
        text = row["text"]
        if isinstance(text, str) and text.strip():
            yield whole_text(text)
        else:
            skipped.note("empty", f"row {number}")


def nectar_pairs(path: str, skipped: Skipped) -> Iterator[Pair]:
    """The single-turn, good-natured questions of Nectar, each with its best-ranked answer.

    Arguments and errors are those of `fineweb_edu_texts`.
    """
    for number, row in enumerate(_rows(NECTAR, path), 1):
        texts = nectar_texts(row)
        if isinstance(texts, str):
            skipped.note(texts, f"row {number}")
        else:
            yield Pair(id=f"nectar-{number}", question=texts[0], answer=texts[1])


def nectar_texts(row: dict[str, Any]) -> tuple[str, str] | str:
    """(question, answer) of a row of Nectar, or the reason why it holds no usable pair."""
    if row["turns"] != 1:
        return "of several turns"
    if not row["good_natured"]:
        return "not good-natured"
    prompt = row["prompt"].rstrip() if isinstance(row["prompt"], str) else ""
    if not (prompt.startswith(_HUMAN) and prompt.endswith(_ASSISTANT)):
        return "of another form"
    question = prompt[len(_HUMAN) : -len(_ASSISTANT)].strip()
    # A row may count one turn and hold more of them in its prompt.
    if _HUMAN in question or _ASSISTANT in question:
        return "of several turns"
    ranked = [a for a in row["answers"] or [] if isinstance(a, dict) and a.get("rank") is not None]
    best = min(ranked, key=lambda answer: answer["rank"], default={})
    answer = (best.get("answer") or "").strip()
    if not question or not answer:
        return "empty"
    return whole_text(question), whole_text(answer)


def local_files(path: str) -> list[Path]:
    """The Parquet files of a local copy. Raises: DataError where there is none."""
    return find_files(Path(path), (".parquet",))


def _rows(source: HubSource, path: str) -> Iterator[dict[str, Any]]:
    return _local_rows(source, path) if path else _hub_rows(source)


def _local_rows(source: HubSource, path: str) -> Iterator[dict[str, Any]]:
    files = local_files(path)
    for file in files:
        _check_schema(file, source)
    datasets = _quiet_datasets()
    for file in files:
        try:
            yield from datasets.load_dataset(
                "parquet",
                # The library takes a name with brackets or stars in it for a pattern.
                data_files=[glob.escape(str(file))],
                split="train",
                streaming=True,
                columns=list(source.columns),
            )
        except Exception as error:
            raise damaged_parquet(file, error) from None


def _hub_rows(source: HubSource) -> Iterator[dict[str, Any]]:
    datasets = _quiet_datasets()
    try:
        rows: Iterable[dict[str, Any]] = datasets.load_dataset(
            source.repository, source.config, split="train", streaming=True, revision=source.revision
        ).select_columns(list(source.columns))
        yield from rows
    # Several libraries lie between here and the wire, each with errors of its own; one remedy fits all.
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:160]
        raise RetryLaterError(
            f"Cannot read {source.repository} from the Hugging Face hub: {type(error).__name__}: {reason}",
            "Check the network and try again, or give a local Parquet copy: --set data.path=FOLDER",
        ) from None


def _check_schema(file: Path, source: HubSource) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with opened(file) as handle:
            names = list(pq.read_schema(handle).names)
    except (pa.ArrowException, OSError) as error:
        raise damaged_parquet(file, error) from None
    check_columns(file, names, source.columns)


def _quiet_datasets() -> Any:
    """The `datasets` package, told to draw and log nothing: the screen belongs to the app."""
    try:
        import datasets
        from huggingface_hub.utils import disable_progress_bars, logging
    except ImportError as error:
        raise DataError(
            f"The package {error.name} is not installed.", "Install it: pip install datasets"
        ) from None
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    disable_progress_bars()
    logging.set_verbosity_error()
    return datasets
