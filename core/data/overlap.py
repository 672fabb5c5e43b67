"""Leak guard: held-out pairs that resemble what a model was trained on.

Two signs, after Lee et al. 2022 ("Deduplicating Training Data Makes Language Models Better", arXiv 2107.06499) and
Brown et al. 2020 (GPT-3, appendix C), scaled down to questions of a dozen words: a question whose content words are
mostly those of a training question (Jaccard index), and an answer that repeats a run of words of a training answer.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from core.data.pairs import Pair

LIKENESS = 0.6
"""From this Jaccard index of content words on, two questions count as one, reworded."""
RUN_WORDS = 8
"""An answer that shares so many words in a row with another has them from the same place."""

Words = tuple[str, ...]

_WORD = re.compile(r"[a-z0-9]+(?:['.-][a-z0-9]+)*")
_COMMON_WORDS = frozenset(
    _WORD.findall(
        "a about an and are as at be been but by can could did do does for from get give had has have he her his how i "
        "if in is it its me my no not of on one or out she should so some than that the their them there they this to "
        "up was we were what when where which who why will with would you your"
    )
)


@dataclass(frozen=True, slots=True)
class Leak:
    """A held-out pair and the training pair that gives it away."""

    held_out: str
    trained: str
    """Ids of the two pairs."""
    where: str
    """`question` or `answer`."""
    shared: str
    """The content words, or the first run of words, that both have."""
    likeness: float
    """Jaccard index of the questions' content words; 1 for a shared run."""


def words(text: str) -> Words:
    """The words of a text in lower case, punctuation left out."""
    return tuple(_WORD.findall(text.lower().replace("\u2019", "'")))


def content_words(text: str) -> frozenset[str]:
    """The different words of a text that say what it is about."""
    return frozenset(words(text)) - _COMMON_WORDS


def likeness(one: frozenset[str], other: frozenset[str]) -> float:
    """Jaccard index: shared words over all words of both, 0 to 1; 0 where both are empty."""
    return len(one & other) / len(one | other) if one | other else 0.0


def runs_of(length: int, text: str) -> Iterator[Words]:
    """Every run of so many words in a row."""
    found = words(text)
    return (found[at : at + length] for at in range(len(found) - length + 1))


def find_leaks(
    held_out: Iterable[Pair], trained: Iterable[Pair], threshold: float = LIKENESS, run_words: int = RUN_WORDS
) -> list[Leak]:
    """The leaks of each held-out pair, at most one of its question (the likeliest) and one of its answer."""
    index = _Index(trained, run_words)
    leaks: list[Leak] = []
    for pair in held_out:
        leaks += filter(None, [index.like_question(pair, threshold), index.shared_run(pair)])
    return leaks


class _Index:
    """Training pairs by their questions' content words and by their answers' runs."""

    def __init__(self, trained: Iterable[Pair], run_words: int) -> None:
        self._run_words = run_words
        self._questions: list[tuple[str, frozenset[str]]] = []
        self._by_word: defaultdict[str, list[int]] = defaultdict(list)
        self._by_run: dict[Words, str] = {}
        for number, pair in enumerate(trained):
            asked = content_words(pair.question)
            self._questions.append((pair.id, asked))
            for word in asked:
                self._by_word[word].append(number)
            for run in runs_of(run_words, pair.answer):
                self._by_run.setdefault(run, pair.id)

    def like_question(self, pair: Pair, threshold: float) -> Leak | None:
        asked = content_words(pair.question)
        # Only questions that share a word can be alike; counting them word by word spares the rest.
        shared = Counter(number for word in asked for number in self._by_word[word])
        best = max(shared, key=lambda number: likeness(asked, self._questions[number][1]), default=None)
        if best is None:
            return None
        name, other = self._questions[best]
        index = likeness(asked, other)
        return (
            Leak(pair.id, name, "question", " ".join(sorted(asked & other)), index)
            if index >= threshold
            else None
        )

    def shared_run(self, pair: Pair) -> Leak | None:
        for run in runs_of(self._run_words, pair.answer):
            if run in self._by_run:
                return Leak(pair.id, self._by_run[run], "answer", " ".join(run), 1.0)
        return None
