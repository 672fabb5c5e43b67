"""Held-out questions asked while a model is trained: a fixed part of each set, measured as the eval measures."""

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator

from core.config import QualityConfig
from core.data.pairs import Pair
from core.errors import CheckpointError, DataError
from core.evals.items import QuestionSet, builtin_sets, check_sets, read_set
from core.evals.probability import mean_probability, score
from core.events import AnswersScored, NonFiniteMet
from core.generate import Voice


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


def ask(
    voice: Voice,
    question_set: QuestionSet,
    tokens: int,
    precision: Callable[[], contextlib.AbstractContextManager[object]],
) -> Iterator[AnswersScored | NonFiniteMet | None]:
    """A None after each batch, where whoever asks may leave; then what was found, if only that it is no number.

    Args:
        tokens: that the model has seen.
        precision: gives the context that the forward passes run in.
    Raises: DataError where no question fits into the model's context.
    """
    started_at, answers = time.monotonic(), {}
    batches = score(voice, question_set.pairs)
    while True:
        try:
            # Left before the yield: whoever goes on there must not compute in it.
            with precision():
                batch = next(batches, None)
        except CheckpointError:
            yield NonFiniteMet(step=voice.step, what=f"probability of answers, {question_set.name}")
            return
        if batch is None:
            break
        answers |= batch
        yield None
    if not answers:
        raise DataError(
            f"No question of {question_set.name} fits, with its answer, into the model's context.",
            "Give shorter questions in quality.files, or set quality.questions=0.",
        )
    yield AnswersScored(
        step=voice.step,
        tokens=tokens,
        questions=question_set.name,
        items=len(answers),
        mean_probability=mean_probability(answers.values()),
        elapsed_s=time.monotonic() - started_at,
    )
