"""The sets of questions that models are compared on."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from core.data.pairs import Pair, read_pairs
from core.data.sources import sandlot_pairs
from core.errors import DataError, UsageError

BASEBALL_SET, GENERAL_SET = "baseball-heldout", "general-heldout"


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """Questions with their right answers, under the name that the report gives them."""

    name: str
    pairs: list[Pair]


def builtin_sets() -> list[QuestionSet]:
    """The pairs of the built-in corpus that no stage learns from: on baseball, then on general subjects."""
    return [
        QuestionSet(BASEBALL_SET, sandlot_pairs("baseball", "heldout")),
        QuestionSet(GENERAL_SET, sandlot_pairs("general", "heldout")),
    ]


def read_set(path: str | Path) -> QuestionSet:
    """The pairs of a file, named after its stem. Raises: DataError that names file, line and fix."""
    return QuestionSet(Path(path).stem, read_pairs(path))


def check_sets(sets: list[QuestionSet]) -> None:
    """Raises: UsageError for no set, or for two of one name; DataError for an empty one."""
    if not sets:
        raise UsageError(
            "There is no set of questions to evaluate on.", "Give a file of questions with --qa."
        )
    name, count = Counter(question_set.name for question_set in sets).most_common(1)[0]
    if count > 1:
        raise UsageError(
            f"{count} sets of questions are named {name!r}.",
            "A file's set bears the file's name: rename one file.",
        )
    for question_set in sets:
        if not question_set.pairs:
            raise DataError(f"{question_set.name} holds no questions.", "Leave it out, or give another file.")
