"""The sets of questions that models are compared on."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from core.config import QualityConfig
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


def sets_to_ask(quality: QualityConfig) -> list[QuestionSet]:
    """What a stage asks while it trains: of the domain's set and of the general one, so many questions each.

    Raises: UsageError, DataError for files that cannot be asked.
    """
    if not quality.questions:
        return []
    sets = [read_set(path) for path in quality.files] or builtin_sets()
    check_sets(sets)
    return [fixed_part(question_set, quality.questions) for question_set in sets]


def fixed_part(question_set: QuestionSet, questions: int) -> QuestionSet:
    """So many of a set's questions, chosen by a hash of their text: the same in every run, in whatever order."""
    ordered = sorted(question_set.pairs, key=_hash_of)
    return QuestionSet(question_set.name, ordered[:questions])


def _hash_of(pair: Pair) -> bytes:
    return hashlib.sha256(f"{pair.question}\0{pair.answer}".encode("utf-8", "replace")).digest()


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
